import { randomUUID } from "node:crypto";
import { sql } from "kysely";
import pg from "pg";
import pino from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { migrateDown, migrateUp } from "../postgres/migrator.ts";
import { openDatabase } from "../postgres/open-database.ts";
import type { BusEvent, EventBus, ReceivedEvent } from "./event-bus.ts";
import { migrations } from "./migrations/index.ts";
import { partitionOf } from "./partition.ts";
import { openPostgresEventBus } from "./postgres-event-bus.ts";
import { type RelayBatch, type RelaySource, startRelay } from "./relay.ts";

const log = pino({ level: "silent" });
const topics = [
  { name: "first", partitions: 4 },
  { name: "second", partitions: 3 },
];
let database: TestDatabase;
let bus: EventBus;
const opened: EventBus[] = [];

async function open(leaseMs = 3_000): Promise<EventBus> {
  const another = await openPostgresEventBus({ url: database.url, log, topics, leaseMs });
  opened.push(another);
  return another;
}

beforeAll(async () => {
  database = await createTestDatabase();
  bus = await open();
});
afterAll(async () => {
  await Promise.all(opened.map((one) => one.close()));
  await database.drop();
});

function event(topic: string, key: string, number: number): BusEvent {
  return { topic, key, headers: { number: String(number) }, value: Buffer.from(`${key}/${number}`) };
}

/** Collects what a group gets until `isEnough`. */
function collect(source: EventBus, topic: string, group: string, count: number) {
  const events: ReceivedEvent[] = [];
  const { promise: done, resolve } = Promise.withResolvers<void>();
  const subscription = source.subscribe({
    topic,
    group,
    handle: async (received) => {
      events.push(received);
      if (events.length === count) resolve();
    },
  });
  return { events, done, stop: () => subscription.stop() };
}

test("delivers what was published, in order per key, to each group", async () => {
  const events = Array.from({ length: 600 }, (_, index) => event("first", `key-${index % 17}`, index));
  for (let start = 0; start < events.length; start += 50) await bus.publish(events.slice(start, start + 50));
  for (const group of ["a", "b"]) {
    const collected = collect(bus, "first", group, events.length);
    await collected.done;
    await collected.stop();
    expect(new Set(collected.events.map(({ value }) => value.toString()))).toEqual(
      new Set(events.map(({ value }) => value.toString())),
    );
    const last = new Map<string, number>();
    const offsets = new Map<number, bigint>();
    for (const received of collected.events) {
      const number = Number(received.headers.number);
      expect(number).toBeGreaterThan(last.get(received.key) ?? -1);
      last.set(received.key, number);
      expect(received.offset).toBe(offsets.get(received.partition) ?? 0n);
      offsets.set(received.partition, received.offset + 1n);
    }
  }
});

test("goes on where the group stopped, and is woken by what is new", async () => {
  const topic = "second";
  await bus.publish([event(topic, "k", 1), event(topic, "k", 2)]);
  const before = collect(bus, topic, "resuming", 2);
  await before.done;
  await before.stop();
  const after = collect(bus, topic, "resuming", 1);
  await bus.publish([event(topic, "k", 3)]);
  await after.done;
  await after.stop();
  expect(after.events.map(({ headers }) => headers.number)).toEqual(["3"]);
});

test("an event whose handler fails comes again, before the next of its partition", async () => {
  const key = randomUUID();
  const seen: string[] = [];
  const { promise: done, resolve } = Promise.withResolvers<void>();
  await bus.publish([1, 2, 3].map((number) => event("first", key, number)));
  const subscription = bus.subscribe({
    topic: "first",
    group: "failing",
    handle: async (received) => {
      if (received.key !== key) return;
      const number = received.headers.number ?? "";
      seen.push(number);
      if (number === "2" && seen.filter((other) => other === "2").length < 3) throw new Error("not now");
      if (number === "3") resolve();
    },
  });
  await done;
  await subscription.stop();
  expect(seen).toEqual(["1", "2", "2", "2", "3"]);
});

test("appenders at once leave no hole and no disorder", async () => {
  const others = [bus, await open(), await open()];
  const group = randomUUID();
  const known = collect(bus, "second", group, Number.POSITIVE_INFINITY);
  await Promise.all(
    others.map(async (one, writer) => {
      for (let number = 0; number < 60; number++) {
        await one.publish([0, 1, 2, 3].map((key) => event("second", `w${writer}-${key}`, number)));
      }
    }),
  );
  await expect.poll(() => known.events.filter(({ key }) => key.startsWith("w")).length, { timeout: 10_000 }).toBe(720);
  await known.stop();
  const offsets = new Map<number, bigint>();
  const last = new Map<string, number>();
  for (const received of known.events) {
    expect(received.offset).toBe(offsets.get(received.partition) ?? 0n);
    offsets.set(received.partition, received.offset + 1n);
    if (!received.key.startsWith("w")) continue;
    expect(Number(received.headers.number)).toBe((last.get(received.key) ?? -1) + 1);
    last.set(received.key, Number(received.headers.number));
  }
});

describe("a group of several members", () => {
  test("shares the partitions out, one member each, and hands them over in order", async () => {
    const [left, right] = [await open(600), await open(600)];
    const group = randomUUID();
    // Two keys for each of the four partitions.
    const keys: string[] = [];
    for (let index = 0; keys.length < 8; index++) {
      const key = `${group}-${index}`;
      const inSame = keys.filter((other) => partitionOf(other, 4) === partitionOf(key, 4));
      if (inSame.length < 2) keys.push(key);
    }
    const running = new Map<number, number>();
    const by = new Map<string, Set<number>>();
    const order = new Map<string, number[]>();
    let overlaps = 0;
    const member = (name: string, source: EventBus) =>
      source.subscribe({
        topic: "first",
        group,
        handle: async (received) => {
          running.set(received.partition, (running.get(received.partition) ?? 0) + 1);
          if (running.get(received.partition) !== 1) overlaps += 1;
          await new Promise((resolve) => setImmediate(resolve));
          running.set(received.partition, (running.get(received.partition) ?? 0) - 1);
          by.set(name, (by.get(name) ?? new Set()).add(received.partition));
          if (!received.key.startsWith(group)) return;
          order.set(received.key, [...(order.get(received.key) ?? []), Number(received.headers.number)]);
        },
      });
    const first = member("left", left);
    await bus.publish(keys.map((key) => event("first", key, 0)));
    await expect.poll(() => by.get("left")?.size, { timeout: 10_000 }).toBe(4);
    const second = member("right", right);
    let number = 0;
    const partitionsOfRight = async () => {
      number += 1;
      await bus.publish(keys.map((key) => event("first", key, number)));
      return by.get("right")?.size;
    };
    await expect.poll(partitionsOfRight, { timeout: 15_000, interval: 50 }).toBe(2);
    await first.stop();
    await expect.poll(partitionsOfRight, { timeout: 15_000, interval: 50 }).toBe(4);
    const last = number;
    await expect.poll(() => [...order.values()].every((seen) => seen.includes(last)), { timeout: 10_000 }).toBe(true);
    await second.stop();
    expect(overlaps).toBe(0);
    for (const seen of order.values()) expect(seen).toEqual(Array.from({ length: last + 1 }, (_, index) => index));
  });

  test("loses a stale member's commit", async () => {
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
    await expect.poll(async () => (await join("fresh")).length, { timeout: 5_000, interval: 60 }).toBe(3);
    const { rows } = await sql<{ committed: boolean }>`
      select commit_offset(${group}, 'second', ${stale.partition}::int, 'stale', ${stale.epoch}::bigint, 1) as committed
    `.execute(engine.engine);
    expect(rows).toEqual([{ committed: false }]);
    await engine.close();
  });
});

describe("the schema", () => {
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
    const alone = await openPostgresEventBus({ url: own.url, log, topics });
    const inside = openDatabase<Record<never, never>>({ url: own.url, service: "bus", log });
    await alone.publish(Array.from({ length: 10 }, (_, number) => event("first", "k", number)));
    const { done, stop } = collect(alone, "first", "reader", 10);
    await done;
    await stop();
    await alone.publish([event("first", "k", 10)]);
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
    expect(await migrateDown({ ...options, to: "" })).toEqual(["0001-initial"]);
    expect(await migrateUp(options)).toEqual(["0001-initial"]);
    await own.drop();
  });
});

/** A log in memory that keeps what a killed relay would find again. */
class MemoryLog implements RelaySource {
  /** By position less one; some entries state nothing. */
  readonly entries: (BusEvent | undefined)[] = [];
  relayed = 0n;

  add(made: BusEvent | undefined): void {
    this.entries.push(made);
  }

  async read(limit: number): Promise<RelayBatch | undefined> {
    const end = Math.min(Number(this.relayed) + limit, this.entries.length);
    if (end === Number(this.relayed)) return undefined;
    const events = this.entries.slice(Number(this.relayed), end).filter((made) => made !== undefined);
    return { events, position: BigInt(end), more: end < this.entries.length };
  }

  async markRelayed(position: bigint): Promise<void> {
    this.relayed = position;
  }

  async lag(): Promise<bigint> {
    return BigInt(this.entries.length) - this.relayed;
  }
}

describe("the relay", () => {
  test("hands everything on in order, whatever fails, and marks only what the bus has", async () => {
    const source = new MemoryLog();
    const published: string[] = [];
    let calls = 0;
    const flaky: EventBus = {
      async publish(events) {
        calls += 1;
        if (calls % 3 === 1) throw new Error("refused");
        published.push(...events.map(({ headers }) => headers.number ?? ""));
        if (calls % 3 === 2) throw new Error("published, but the answer was lost");
      },
      subscribe: (options) => bus.subscribe(options),
      close: async () => undefined,
    };
    for (let number = 0; number < 25; number++) {
      source.add(number % 5 === 0 ? undefined : event("first", "relay", number));
    }
    const relay = startRelay({ name: "test", source, bus: flaky, log, batchSize: 10, idleMs: 60_000 });
    await expect.poll(() => source.lag(), { timeout: 10_000 }).toBe(0n);
    // Woken, not waiting for the minute.
    source.add(event("first", "relay", 25));
    relay.wake();
    await expect.poll(() => source.lag(), { timeout: 10_000 }).toBe(0n);
    await relay.stop();
    const firstSeen = [...new Set(published)].map(Number);
    const expected = Array.from({ length: 26 }, (_, number) => number).filter((n) => n % 5 !== 0 || n === 25);
    expect(firstSeen).toEqual(expected);
    expect(published.length).toBeGreaterThan(firstSeen.length);
  });

  test("reports its lag", async () => {
    const source = new MemoryLog();
    source.add(undefined);
    const relay = startRelay({ name: "test", source, bus, log, idleMs: 60_000 });
    await expect.poll(() => source.lag()).toBe(0n);
    await relay.stop();
  });
});
