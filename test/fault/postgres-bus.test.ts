import { join } from "node:path";
import { type Generated, sql } from "kysely";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "../../services/runtime/postgres/database.ts";
import { type Migration, migrate } from "../../services/runtime/postgres/migrator.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { type Child, startChild } from "../support/child.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";

interface Schema {
  entry: { position: bigint; key: string; number: number };
  seen: { id: Generated<bigint>; key: string; number: number };
}

const log = pino({ level: "silent" });
const program = join(import.meta.dirname, "../support/bus-process.ts");
const initial: Migration = {
  name: "0001-initial",
  destructive: false,
  up: async (db) => {
    await sql`create table entry (position bigint primary key, key text not null, number int not null)`.execute(db);
    await sql`create table relayed (position bigint not null)`.execute(db);
    await sql`insert into relayed values (0)`.execute(db);
    await sql`create table seen (id bigint generated always as identity primary key, key text not null,
      number int not null)`.execute(db);
  },
  down: async (db) => {
    await sql`drop table seen, relayed, entry`.execute(db);
  },
};

const keys = 12;
const perKey = 100;
const kills = 4;
let server: TestDatabase;
let database: Database<Schema>;
const children = new Set<Child>();

beforeAll(async () => {
  server = await createTestDatabase();
  await migrate({ url: server.url, service: "sample", migrations: [initial], log });
  database = openDatabase<Schema>({ url: server.url, service: "sample", log });
});
afterAll(async () => {
  for (const child of children) await child.crash();
  await database.close();
  await server.drop();
});

async function start(role: "relay" | "consumer"): Promise<Child> {
  const child = startChild(program, [role, server.url]);
  children.add(child);
  await child.line();
  return child;
}

async function seen(): Promise<readonly { key: string; number: number }[]> {
  return database.engine.selectFrom("seen").select(["key", "number"]).orderBy("id").execute();
}

test("no event is lost and none overtakes another, whatever is killed", { timeout: 120_000 }, async () => {
  const entries = Array.from({ length: keys * perKey }, (_, index) => ({
    position: BigInt(index + 1),
    key: `key-${index % keys}`,
    number: Math.floor(index / keys),
  }));
  let relay = await start("relay");
  let consumers = [await start("consumer"), await start("consumer")];
  const share = entries.length / (kills + 1);
  for (let round = 0; round <= kills; round++) {
    const before = (await seen()).length;
    await database.engine
      .insertInto("entry")
      .values(entries.slice(round * share, (round + 1) * share))
      .execute();
    if (round === kills) break;
    // Kill in the middle of the work, not before it and not after it.
    await expect.poll(async () => (await seen()).length - before, { timeout: 30_000, interval: 5 }).toBeGreaterThan(20);
    const [first, second] = consumers;
    if (first === undefined || second === undefined) throw new Error("two consumers run");
    await Promise.all([relay.crash(), first.crash()]);
    const [newRelay, newConsumer] = await Promise.all([start("relay"), start("consumer")]);
    relay = newRelay;
    consumers = [second, newConsumer];
  }
  const distinct = async () => new Set((await seen()).map(({ key, number }) => `${key}/${number}`)).size;
  await expect.poll(distinct, { timeout: 30_000, interval: 100 }).toBe(entries.length);

  // The first time that each event was seen: 0, 1, 2, … for every key.
  const next = new Map<string, number>();
  for (const { key, number } of await seen()) {
    const expected = next.get(key) ?? 0;
    expect(number).toBeLessThanOrEqual(expected);
    if (number === expected) next.set(key, expected + 1);
  }
  for (const child of [relay, ...consumers]) expect(await child.finish()).toBe(0);
});
