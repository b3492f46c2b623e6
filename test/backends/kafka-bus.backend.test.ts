import { randomUUID } from "node:crypto";
import pino from "pino";
import { describe, expect, inject, test } from "vitest";
import type { EventBus } from "../../services/runtime/bus/event-bus.ts";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { contractTopics, describeEventBus, numberedEvent } from "../support/event-bus-contract.ts";
import { makeTopics, removeTopics } from "./kafka-topics.ts";

const log = pino({ level: "silent" });
// Kafka's least, so that a dead member is noticed within a test.
const sessionMs = 6_000;

for (const [name, connection] of [
  ["Kafka", inject("kafka")],
  ["Kafka with TLS and a password", inject("secureKafka")],
] as const) {
  describeEventBus(name, async () => {
    await makeTopics(connection, contractTopics);
    const opened: EventBus[] = [];
    return {
      async open() {
        const bus = open(connection, contractTopics);
        opened.push(bus);
        return bus;
      },
      async close() {
        await Promise.all(opened.map((one) => one.close()));
        await removeTopics(
          connection,
          contractTopics.map((topic) => topic.name),
        );
      },
    };
  });
}

function open(connection: KafkaConnection, topics: readonly { readonly name: string; readonly partitions: number }[]) {
  return openKafkaEventBus({ connection: async () => connection, log, topics, sessionMs });
}

describe("a member of a group of Kafka", () => {
  test("keeps its partition while a handler takes longer than the session, and hands it over after it", async () => {
    const connection = inject("kafka");
    const topic = `slow-${randomUUID()}`;
    const topics = [{ name: topic, partitions: 1 }];
    await makeTopics(connection, topics);
    const [left, right] = [open(connection, topics), open(connection, topics)];
    const handled: string[] = [];
    let running = 0;
    let overlaps = 0;
    const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    const subscribe = (name: string, bus: EventBus) =>
      bus.subscribe({
        topic,
        group: "slow",
        handle: async ({ headers }, signal) => {
          running += 1;
          if (running > 1) overlaps += 1;
          if (headers.number === "0") {
            begin();
            await released;
          }
          expect(signal.aborted).toBe(false);
          running -= 1;
          handled.push(`${name} ${headers.number}`);
        },
      });
    await left.publish([numberedEvent(topic, "k", 0), numberedEvent(topic, "k", 1)]);
    const first = subscribe("left", left);
    await begun;
    // Another member comes, and waits: through more than one session of the first.
    const second = subscribe("right", right);
    const beganMs = performance.now();
    await expect
      .poll(() => performance.now() - beganMs, { timeout: 20_000, interval: 200 })
      .toBeGreaterThan(1.5 * sessionMs);
    release();
    await expect.poll(() => handled.length, { timeout: 30_000 }).toBe(2);
    await Promise.all([first.stop(), second.stop()]);
    expect(handled.filter((one) => one.endsWith(" 0"))).toEqual(["left 0"]);
    expect(overlaps).toBe(0);
    await Promise.all([left.close(), right.close()]);
  });
});
