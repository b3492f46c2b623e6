import { sql } from "kysely";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { enableOrgSecurity, type Migration, migrate } from "./migrator.ts";
import { openDatabase } from "./open-database.ts";

const log = pino({ level: "silent" });
const initial: Migration = {
  name: "0001-initial",
  destructive: false,
  up: async (db) => {
    await sql`create table note (id bigint generated always as identity primary key, org_id uuid not null, text text not null)`.execute(
      db,
    );
    await enableOrgSecurity(db, "note", "sample");
  },
  down: async (db) => {
    await sql`drop table note`.execute(db);
  },
};
let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

test("smoke", async () => {
  await migrate({ url: database.url, service: "sample", migrations: [initial], log });
  const db = openDatabase<{ note: { id: bigint; org_id: string; text: string } }>({
    url: database.url,
    service: "sample",
    log,
  });
  const orgs = ["00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"];
  for (const org of orgs) {
    await db.asOrg(org, async (t) => {
      await sql`insert into note (org_id, text) values (${org}, 'hello')`.execute(t);
    });
    expect(await db.asOrg(org, (t) => t.selectFrom("note").select("org_id").execute())).toEqual([{ org_id: org }]);
  }
  expect(await db.engine.selectFrom("note").select("id").execute()).toEqual([{ id: 1n }, { id: 2n }]);
  await db.close();
});
