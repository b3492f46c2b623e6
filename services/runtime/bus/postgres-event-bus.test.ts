import { randomUUID } from "node:crypto";
import { sql } from "kysely";
import pg from "pg";
import pino from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { collect, contractTopics, describeEventBus, numberedEvent } from "../../../test/support/event-bus-contract.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { migrateDown, migrateUp } from "../postgres/migrator.ts";
import { openDatabase } from "../postgres/open-database.ts";
import type { EventBus } from "./event-bus.ts";
import { migrations } from "./migrations/index.ts";
import { openPostgresEventBus } from "./postgres-event-bus.ts";

const log = pino({ level: "silent" });

describeEventBus("PostgreSQL", async () => {
  const database = await createTestDatabase();
  const opened: EventBus[] = [];
  return {
    async open(leaseMs = 3_000) {
      const bus = await openPostgresEventBus({ url: database.url, log, topics: contractTopics, leaseMs });
      opened.push(bus);
      return bus;
    },
    async close() {
      await Promise.all(opened.map((one) => one.close()));
      await database.drop();
    },
  };
});

describe("the schema", () => {
  let database: TestDatabase;
  let bus: EventBus;
  beforeAll(async () => {
    database = await createTestDatabase();
    bus = await openPostgresEventBus({ url: database.url, log, topics: contractTopics });
  });
  afterAll(async () => {
    await bus.close();
    await database.drop();
  });

  test("refuses a stale member's commit", async () => {
    const engine = openDatabase<Record<never, never>>({ url: database.url, service: "bus", log });
    const group = randomUUID();
    const join = (member: string) =>
      sql<{
        partition: number;
        epoch: bigint;
      }>`select partition, epoch from join_group(${group}, 'second', ${member}, 50)`
        .execute(engine.engine)
        .then(({ rows }) => rows);
    const [stale] = await join("stale");
    if (stale === undefined) throw new Error("a member alone gets all partitions");
    await expect.poll(async () => (await join("fresh")).length, { interval: 60 }).toBe(3);
    const { rows } = await sql<{ committed: boolean }>`
      select commit_offset(${group}, 'second', ${stale.partition}::int, 'stale', ${stale.epoch}::bigint, 1) as committed
    `.execute(engine.engine);
    expect(rows).toEqual([{ committed: false }]);
    await engine.close();
  });

  test("is closed to the roles but for its functions", async () => {
    const client = new pg.Client({ connectionString: database.url, options: "-c role=cadre_bus_engine" });
    await client.connect();
    await expect(client.query("select * from bus.event")).rejects.toMatchObject({ code: "42501" });
    await expect(client.query("delete from bus.position")).rejects.toMatchObject({ code: "42501" });
    await client.end();
  });

  test("removes what is old and acknowledged, and nothing else", async () => {
    const engine = openDatabase<Record<never, never>>({ url: database.url, service: "bus", log });
    const own = await createTestDatabase();
    const alone = await openPostgresEventBus({ url: own.url, log, topics: contractTopics });
    const inside = openDatabase<Record<never, never>>({ url: own.url, service: "bus", log });
    await alone.publish(Array.from({ length: 10 }, (_, number) => numberedEvent("first", "k", number)));
    const { done, stop } = collect(alone, "first", "reader", 10);
    await done;
    await stop();
    await alone.publish([numberedEvent("first", "k", 10)]);
    const prune = async (days: number, limit: number) =>
      (await sql<{ removed: bigint }>`select prune(${days}::int, ${limit}::int) as removed`.execute(inside.engine))
        .rows;
    expect(await prune(1, 100)).toEqual([{ removed: 0n }]);
    expect(await prune(0, 4)).toEqual([{ removed: 4n }]);
    expect(await prune(0, 100)).toEqual([{ removed: 6n }]);
    expect(await prune(0, 100)).toEqual([{ removed: 0n }]);
    await Promise.all([inside.close(), engine.close(), alone.close()]);
    await own.drop();
  });

  test("goes up, down and up again", async () => {
    const own = await createTestDatabase();
    const options = { url: own.url, service: "bus", migrations, log };
    await migrateUp(options);
    const steps = migrations.map(({ name }) => name);
    expect(await migrateDown({ ...options, to: "" })).toEqual(steps.toReversed());
    expect(await migrateUp(options)).toEqual(steps);
    await own.drop();
  });
});
