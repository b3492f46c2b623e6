import { setTimeout as delay } from "node:timers/promises";
import { createNoopMeter, trace } from "@opentelemetry/api";
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import { MeterProvider } from "@opentelemetry/sdk-metrics";
import pino from "pino";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { consumeRepeatable } from "../../services/runtime/bus/consumer/consume-repeatable.ts";
import { eventIdOf } from "../../services/runtime/bus/envelope.ts";
import type { ReceivedEvent } from "../../services/runtime/bus/event-bus.ts";
import { type KafkaEventBus, openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { conversationTurns, deadLetterTopicOf } from "../../services/runtime/bus/topics.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { collectEvents } from "../support/collect-events.ts";
import { codec, turnEvent } from "../support/turn-facts.ts";
import { makeTopics, removeTopics } from "./kafka-topics.ts";

// Consumers that cannot keep up, beside one that can: who is slow shows, and
// holds up nobody but itself.

const log = pino({ level: "silent" });
const connection = inject("kafka");
const topics = [
  { name: conversationTurns.name, partitions: conversationTurns.partitions },
  { name: deadLetterTopicOf(conversationTurns.name), partitions: 1 },
];
const exporter = new PrometheusExporter({ preventServerStart: true });
const meter = new MeterProvider({ readers: [exporter] }).getMeter("t");
/** What the one that is stuck waits for: the end of the test. */
const stuck = Promise.withResolvers<void>();
let bus: KafkaEventBus;

beforeAll(async () => {
  await makeTopics(connection, topics);
  bus = openKafkaEventBus({ connection: async () => connection, log, meter, topics, sessionMs: 6_000 });
});
afterAll(async () => {
  stuck.resolve();
  await bus.close();
  await removeTopics(
    connection,
    topics.map(({ name }) => name),
  );
});

async function lagOf(group: string): Promise<number> {
  const text = new PrometheusSerializer().serialize((await exporter.collect()).resourceMetrics);
  return Number(new RegExp(`^cadre_bus_lag\\{[^}]*group="${group}"[^}]*\\} (\\d+)`, "m").exec(text)?.[1] ?? Number.NaN);
}

test("one takes half a second an event, one is stuck for ever, one hangs past its deadline: the others go on", {
  timeout: 180_000,
}, async () => {
  const orgId = newId("org");
  const sessions = Array.from({ length: 24 }, () => newId("ses"));
  const publishedAtMs = new Map<string, number>();
  const waitedMs: number[] = [];
  const slow: ReceivedEvent[] = [];
  let isHeld = 0;
  const shared = {
    bus,
    codec,
    topic: conversationTurns,
    log,
    tracer: trace.getTracer("test"),
    meter: createNoopMeter(),
  };
  consumeRepeatable({
    ...shared,
    group: "test.quick",
    handle: async ({ eventId }) => void waitedMs.push(performance.now() - (publishedAtMs.get(eventId) ?? 0)),
  });
  consumeRepeatable({
    ...shared,
    group: "test.slow",
    handle: async ({ event }) => {
      await delay(500);
      slow.push(event);
    },
  });
  // Without the layers of a consumer nobody cuts it.
  bus.subscribe({
    topic: conversationTurns.name,
    group: "test.stuck",
    handle: async () => {
      isHeld += 1;
      await stuck.promise;
    },
  });
  consumeRepeatable({ ...shared, group: "test.hanging", attemptMs: 200, handle: () => stuck.promise });
  const letters = collectEvents(bus, deadLetterTopicOf(conversationTurns.name), "test.letters");

  async function publish(count: number): Promise<readonly string[]> {
    const events = await Promise.all(
      Array.from({ length: count }, (_, index) => turnEvent(orgId, sessions[index % sessions.length] ?? "", index)),
    );
    for (const event of events) publishedAtMs.set(eventIdOf(event), performance.now());
    await bus.publish(events);
    return events.map(eventIdOf);
  }
  // All members have their partitions when each has begun.
  await publish(sessions.length);
  await expect
    .poll(() => [waitedMs.length, slow.length > 0, isHeld > 0], { timeout: 60_000 })
    .toEqual([24, true, true]);

  // Ten seconds of load, of which the slow one can do a part.
  waitedMs.length = 0;
  const rounds = 50;
  for (let round = 0; round < rounds; round++) {
    await publish(24);
    await delay(200);
  }
  await expect.poll(() => waitedMs.length, { timeout: 60_000 }).toBe(24 * rounds);
  const p95 = waitedMs.sort((a, b) => a - b)[Math.floor(waitedMs.length * 0.95)] ?? Number.NaN;
  expect(p95).toBeLessThan(2_000);
  // It shows who is behind, and by how much.
  const lags = { quick: await lagOf("test.quick"), slow: await lagOf("test.slow"), stuck: await lagOf("test.stuck") };
  process.stdout.write(`lag ${JSON.stringify(lags)}, the quick one's p95 ${Math.round(p95)} ms\n`);
  await expect.poll(() => lagOf("test.quick"), { timeout: 30_000 }).toBe(0);
  expect(lags.slow).toBeGreaterThan(100);
  expect(lags.stuck).toBeGreaterThan(1_000);
  // The slow one is not thrown out of its group: it goes on, in order, and repeats nothing.
  const before = slow.length;
  await expect.poll(() => slow.length, { timeout: 30_000 }).toBeGreaterThan(before + 24);
  expect(new Set(slow.map(eventIdOf)).size).toBe(slow.length);
  for (const partition of new Set(slow.map((event) => event.partition))) {
    const offsets = slow.filter((event) => event.partition === partition).map(({ offset }) => offset);
    expect(offsets).toEqual(offsets.toSorted((a, b) => Number(a - b)));
  }
  // The one that is stuck has begun one event of each partition, and no more.
  expect(isHeld).toBeLessThanOrEqual(conversationTurns.partitions);
  // What hangs past its deadline is put aside, each event for itself, and its partitions go on.
  await expect.poll(() => letters.events.length, { timeout: 60_000 }).toBeGreaterThan(conversationTurns.partitions);
});
