import { join } from "node:path";
import { type Generated, sql } from "kysely";
import pino from "pino";
import { expect } from "vitest";
import { type Migration, migrate } from "../../services/runtime/postgres/migrator.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { type Child, startChild } from "./child.ts";
import { createTestDatabase } from "./postgres.ts";

/** What the processes of `bus-process.ts` share, in the schema `sample`. */
export interface SampleSchema {
  entry: { position: bigint; key: string; number: number };
  relayed: { position: bigint };
  seen: { id: Generated<bigint>; key: string; number: number };
}

export interface BusKillsOptions {
  /** The broker of Kafka; the bus is in the PostgreSQL of the test unless said. */
  readonly broker?: string;
  readonly keys: number;
  readonly perKey: number;
  /** How often a relay and a consumer are killed. */
  readonly kills: number;
  /** How many events have come since the last kill before the next one. */
  readonly leastBetween: number;
  /** What else happens at each kill. */
  readonly atKill?: () => Promise<void>;
}

const program = join(import.meta.dirname, "bus-process.ts");
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

/**
 * Writes numbered entries to a log while the relay that publishes them and the
 * consumers that see them, processes of their own, are killed in the middle of
 * their work. Expects that every event is seen, and that none overtakes another
 * of its key; it may be seen again.
 */
export async function expectToSurviveKills(options: BusKillsOptions): Promise<void> {
  const { broker, keys, perKey, kills, leastBetween, atKill } = options;
  const log = pino({ level: "silent" });
  const server = await createTestDatabase();
  await migrate({ url: server.url, service: "sample", migrations: [initial], log });
  const database = openDatabase<SampleSchema>({ url: server.url, service: "sample", log });
  const children = new Set<Child>();
  const start = async (role: "relay" | "consumer"): Promise<Child> => {
    const child = startChild(program, [role, server.url, ...(broker === undefined ? [] : [broker])]);
    children.add(child);
    await child.line();
    return child;
  };
  const seen = () => database.engine.selectFrom("seen").select(["key", "number"]).orderBy("id").execute();
  const distinct = async () => new Set((await seen()).map(({ key, number }) => `${key}/${number}`)).size;
  try {
    const entries = Array.from({ length: keys * perKey }, (_, index) => ({
      position: BigInt(index + 1),
      key: `key-${index % keys}`,
      number: Math.floor(index / keys),
    }));
    let relay = await start("relay");
    let consumers = [await start("consumer"), await start("consumer")];
    const share = Math.ceil(entries.length / (kills + 1));
    for (let round = 0; round <= kills; round++) {
      const before = await distinct();
      await database.engine
        .insertInto("entry")
        .values(entries.slice(round * share, (round + 1) * share))
        .execute();
      if (round === kills) break;
      // Kill in the middle of the work, not before it and not after it.
      const isUnderWay = async () => (await distinct()) - before;
      await expect.poll(isUnderWay, { timeout: 60_000, interval: 5 }).toBeGreaterThan(leastBetween);
      const [first, second] = consumers;
      if (first === undefined || second === undefined) throw new Error("two consumers run");
      await Promise.all([relay.crash(), first.crash(), atKill?.()]);
      const [newRelay, newConsumer] = await Promise.all([start("relay"), start("consumer")]);
      relay = newRelay;
      consumers = [second, newConsumer];
    }
    await expect.poll(distinct, { timeout: 60_000, interval: 100 }).toBe(entries.length);

    // The first time that each event was seen: 0, 1, 2, … for every key.
    const next = new Map<string, number>();
    for (const { key, number } of await seen()) {
      const expected = next.get(key) ?? 0;
      expect(number).toBeLessThanOrEqual(expected);
      if (number === expected) next.set(key, expected + 1);
    }
    for (const child of [relay, ...consumers]) expect(await child.finish(), child.errors()).toBe(0);
  } finally {
    for (const child of children) await child.crash();
    await database.close();
    await server.drop();
  }
}
