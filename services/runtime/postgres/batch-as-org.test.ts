import { randomUUID } from "node:crypto";
import { type Generated, sql } from "kysely";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import type { Database } from "./database.ts";
import { enableOrgSecurity, type Migration, migrate } from "./migrator.ts";
import { openDatabase } from "./open-database.ts";

interface Schema {
  note: { id: Generated<bigint>; org_id: string; text: string };
}

const log = pino({ level: "silent" });
const initial: Migration = {
  name: "0001-initial",
  destructive: false,
  up: async (db) => {
    await sql`create table note (
      id bigint generated always as identity primary key, org_id uuid not null, text text not null unique
    )`.execute(db);
    await enableOrgSecurity(db, "note", "sample");
  },
  down: async (db) => {
    await sql`drop table note`.execute(db);
  },
};
let server: TestDatabase;
let database: Database<Schema>;

beforeAll(async () => {
  server = await createTestDatabase();
  await migrate({ url: server.url, service: "sample", migrations: [initial], log });
  database = openDatabase<Schema>({ url: server.url, service: "sample", log, maxConnections: 2 });
});
afterAll(async () => {
  await database.close();
  await server.drop();
});

const write = (org_id: string, text: string) =>
  database.engine.insertInto("note").values({ org_id, text }).returning("text").compile();
const read = () => database.engine.selectFrom("note").select("text").orderBy("text").compile();

test("statements are one transaction of the org, in order", async () => {
  const org = randomUUID();
  await database.batchAsOrg(randomUUID(), [read()]);
  const [before, written, after] = await database.batchAsOrg(org, [read(), write(org, "one"), read()]);
  expect({ before, written, after }).toEqual({ before: [], written: [{ text: "one" }], after: [{ text: "one" }] });
  expect(await database.batchAsOrg(randomUUID(), [read()])).toEqual([[]]);
  expect(await database.batchAsOrg(org, [read()])).toEqual([[{ text: "one" }]]);
});

test("another org's row cannot be written", async () => {
  await expect(database.batchAsOrg(randomUUID(), [write(randomUUID(), "theirs")])).rejects.toMatchObject({
    code: "42501",
  });
});

test("a statement that fails undoes those before it, and the connection is as good as before", async () => {
  const org = randomUUID();
  for (let round = 0; round < 3; round++) {
    const batch = database.batchAsOrg(org, [write(org, "twice"), write(org, "twice"), read()]);
    await expect(batch).rejects.toMatchObject({ code: "23505" });
  }
  expect(await database.batchAsOrg(org, [read()])).toEqual([[]]);
});

test("batches and transactions share connections without mixing orgs", async () => {
  const orgs = Array.from({ length: 20 }, () => randomUUID());
  await Promise.all(orgs.map((org) => database.batchAsOrg(org, [write(org, org)])));
  const seen = await Promise.all(
    orgs.map((org, index) =>
      index % 2 === 0
        ? database.batchAsOrg(org, [read()]).then(([rows]) => rows)
        : database.asOrg(org, (transaction) => transaction.selectFrom("note").select("text").execute()),
    ),
  );
  expect(seen).toEqual(orgs.map((org) => [{ text: org }]));
});

test("what is no UUID is refused before anything is sent", async () => {
  await expect(database.batchAsOrg("'; drop table note; --", [read()])).rejects.toThrow("no UUID");
});
