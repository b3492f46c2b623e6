import type { KafkaMessage } from "kafkajs";
import pino from "pino";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { KafkaPartition } from "./kafka-partition.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function message(offset: number): KafkaMessage {
  return {
    key: Buffer.from("k"),
    value: Buffer.from("v"),
    timestamp: "0",
    attributes: 0,
    offset: String(offset),
    headers: {},
  };
}

test("commits that fail are tried again with growing pauses, while nothing comes and while events come", async () => {
  const commits: bigint[] = [];
  let isBroken = true;
  const partition = new KafkaPartition({
    topic: "t",
    group: "g",
    partition: 0,
    former: undefined,
    handle: async () => undefined,
    commit: async (next) => {
      commits.push(next);
      if (isBroken) throw new Error("no coordinator");
    },
    log: pino({ level: "silent" }),
  });
  partition.add([message(0)], () => () => undefined);
  await vi.advanceTimersByTimeAsync(60_000);
  // After 100 ms, then 0.2, 0.4, … 10 s at most, and half of that at least.
  expect(commits.length).toBeGreaterThan(8);
  expect(commits.length).toBeLessThan(22);

  const before = commits.length;
  for (let offset = 1; offset <= 2_000; offset++) {
    partition.add([message(offset)], () => () => undefined);
    await vi.advanceTimersByTimeAsync(1);
  }
  expect(commits.length - before).toBeLessThan(2);

  isBroken = false;
  await vi.advanceTimersByTimeAsync(15_000);
  expect(commits.at(-1)).toBe(2_001n);
  const healed = commits.length;
  await vi.advanceTimersByTimeAsync(15_000);
  expect(commits).toHaveLength(healed);
  await partition.finish();
});
