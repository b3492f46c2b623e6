import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type KafkaEventBus, openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { startRelay } from "../../services/runtime/bus/relay.ts";
import { numberedEvent } from "../support/event-bus-contract.ts";
import { MemoryLog } from "../support/memory-log.ts";
import { type KafkaBroker, startKafkaBroker } from "./kafka-broker.ts";
import { makeTopics } from "./kafka-topics.ts";

const log = pino({ level: "silent" });
const topics = [{ name: "restarts", partitions: 6 }];
const keys = 40;
const perKey = 100;
const restarts = 4;
const leastBetween = 200;

let broker: KafkaBroker;
let bus: KafkaEventBus;

beforeAll(async () => {
  broker = await startKafkaBroker({ security: "none" });
  await makeTopics(broker.connection, topics);
  bus = openKafkaEventBus({ connection: async () => broker.connection, log, topics, sessionMs: 6_000 });
});
afterAll(async () => {
  await bus?.close();
  await broker?.stop();
});

test("no event is lost and none overtakes another while the broker is killed and starts again", {
  timeout: 240_000,
}, async () => {
  const source = new MemoryLog();
  const seen: { readonly key: string; readonly number: number }[] = [];
  const subscription = bus.subscribe({
    topic: "restarts",
    group: "witness",
    handle: async ({ key, headers }) => {
      seen.push({ key, number: Number(headers.number) });
    },
  });
  const relay = startRelay({ name: "restarts", source, bus, log, batchSize: 50, idleMs: 20 });
  const distinct = () => new Set(seen.map(({ key, number }) => `${key}/${number}`)).size;
  let written = 0;
  const write = (count: number) => {
    for (const until = written + count; written < until; written++) {
      source.add(numberedEvent("restarts", `key-${written % keys}`, Math.floor(written / keys)));
    }
    relay.wake();
  };
  const share = (keys * perKey) / (restarts + 1);
  for (let restart = 0; restart < restarts; restart++) {
    const before = distinct();
    write(share);
    // In the middle of the work: not before it, and not after it.
    await expect.poll(() => distinct() - before, { timeout: 60_000, interval: 2 }).toBeGreaterThan(leastBetween);
    await broker.crash();
    await broker.start();
  }
  write(share);
  await expect.poll(distinct, { timeout: 60_000, interval: 50 }).toBe(keys * perKey);
  await subscription.stop();
  await relay.stop();

  // The first time that each event was seen: 0, 1, 2, … for every key.
  const next = new Map<string, number>();
  for (const { key, number } of seen) {
    const expected = next.get(key) ?? 0;
    expect(number).toBeLessThanOrEqual(expected);
    if (number === expected) next.set(key, expected + 1);
  }
  expect([...next.values()]).toEqual(Array.from({ length: keys }, () => perKey));
});
