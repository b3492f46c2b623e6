import { pino } from "pino";
import { expect, test, vi } from "vitest";
import type { OwnershipStore } from "../store/ownership-store.ts";
import { DatabaseClock } from "./database-clock.ts";
import { type LossReason, Ownership } from "./ownership.ts";

/** Gives every writer both of two shards. */
class TwoShards implements OwnershipStore {
  writers = 0n;
  readonly retired: bigint[] = [];

  async register() {
    return ++this.writers;
  }
  async claim() {
    const shards = new Map([1, 2].map((shard) => [shard, this.writers]));
    return { shards, fairShare: 2 };
  }
  async release() {
    return [];
  }
  async retire(writer: bigint) {
    this.retired.push(writer);
  }
  async clock() {
    return Date.now();
  }
  async purge() {
    return 0;
  }
}

test("a process that peers refuse for its clock gives its shards back at once, and owns some when it is right", async () => {
  const store = new TwoShards();
  const lost: LossReason[] = [];
  let isWrong = false;
  const ownership = new Ownership({
    store,
    process: "p",
    leaseMs: 400,
    previousAreDead: false,
    log: pino({ level: "silent" }),
    clock: new DatabaseClock(),
    hasWrongClock: () => isWrong,
    onWriter: () => undefined,
    onGained: () => undefined,
    onLost: (why) => lost.push(why),
    idleOf: () => [],
    onGiveUp: async () => undefined,
  });
  await ownership.start();
  expect(ownership.tenure?.shards.size).toBe(2);
  isWrong = true;
  await vi.waitFor(() => expect(store.retired).toEqual([1n]), { timeout: 30_000 });
  expect(ownership.tenure).toBeUndefined();
  await ownership.tick();
  expect(lost).toEqual(["clock"]);
  expect(store.writers).toBe(1n);
  isWrong = false;
  await vi.waitFor(() => expect(ownership.tenure?.writer).toBe(2n), { timeout: 30_000 });
  await ownership.stop();
});
