import { randomUUID } from "node:crypto";
import pino from "pino";
import { describe, expect, inject, test } from "vitest";
import type { EventBus } from "../../services/runtime/bus/event-bus.ts";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { partitionOf } from "../../services/runtime/bus/partition.ts";
import { contractTopics, describeEventBus, numberedEvent } from "../support/event-bus-contract.ts";
import { makeTopics, removeTopics } from "./kafka-topics.ts";

const log = pino({ level: "silent" });
// Kafka's least, so that a dead member is noticed within a test.
const sessionMs = 6_000;

// With TLS and a password; the other suites do without.
describeEventBus("Kafka with TLS and a password", async () => {
  const connection = inject("secureKafka");
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

function open(connection: KafkaConnection, topics: readonly { readonly name: string; readonly partitions: number }[]) {
  return openKafkaEventBus({ connection: async () => connection, log, topics, sessionMs });
}

describe("a member of a group of Kafka", () => {
  test("keeps its partitions while handlers take longer than the session, and hands one over after that", async () => {
    const connection = inject("kafka");
    const topic = `slow-${randomUUID()}`;
    const topics = [{ name: topic, partitions: 2 }];
    await makeTopics(connection, topics);
    const [left, right] = [open(connection, topics), open(connection, topics)];
    const handled: string[] = [];
    const running = new Set<number>();
    let overlaps = 0;
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    const subscribe = (name: string, bus: EventBus) =>
      bus.subscribe({
        topic,
        group: "slow",
        handle: async ({ headers, partition }, signal) => {
          if (running.has(partition)) overlaps += 1;
          running.add(partition);
          if (headers.number === "0") await released;
          expect(signal.aborted).toBe(false);
          running.delete(partition);
          handled.push(`${name} ${partition} ${headers.number}`);
        },
      });
    // A key for each of the two partitions, both of which are busy with their first event.
    const keys = ["a", "b", "c", "d"].filter((key, index, all) => {
      const partition = partitionOf(key, 2);
      return all.findIndex((other) => partitionOf(other, 2) === partition) === index;
    });
    await left.publish(keys.flatMap((key) => [numberedEvent(topic, key, 0), numberedEvent(topic, key, 1)]));
    const first = subscribe("left", left);
    await expect.poll(() => running.size, { timeout: 20_000 }).toBe(2);
    // Another member comes, and waits: through more than one session of the first.
    const second = subscribe("right", right);
    const beganMs = performance.now();
    await expect
      .poll(() => performance.now() - beganMs, { timeout: 20_000, interval: 200 })
      .toBeGreaterThan(1.5 * sessionMs);
    release();
    await expect.poll(() => handled.length, { timeout: 30_000 }).toBe(4);
    await Promise.all([first.stop(), second.stop()]);
    expect(overlaps).toBe(0);
    const whole = [0, 1].flatMap((partition) => [`left ${partition} 0`, expect.stringMatching(`${partition} 1`)]);
    expect(handled.toSorted(byPlace)).toEqual(whole);
    expect(handled.filter((one) => one.startsWith("right"))).toHaveLength(1);
    await Promise.all([left.close(), right.close()]);
  });
});

/** By partition and number. */
function byPlace(one: string, other: string): number {
  return one.replace(/^\w+ /, "").localeCompare(other.replace(/^\w+ /, ""));
}
