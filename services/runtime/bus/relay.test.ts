import pino from "pino";
import { describe, expect, test } from "vitest";
import { numberedEvent } from "../../../test/support/event-bus-contract.ts";
import { MemoryLog } from "../../../test/support/memory-log.ts";
import type { EventBus } from "./event-bus.ts";
import { startRelay } from "./relay.ts";

const log = pino({ level: "silent" });

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
      subscribe: () => ({ stop: async () => undefined }),
      close: async () => undefined,
    };
    for (let number = 0; number < 25; number++) {
      source.add(number % 5 === 0 ? undefined : numberedEvent("first", "relay", number));
    }
    const relay = startRelay({ name: "test", source, bus: flaky, log, batchSize: 10, idleMs: 60_000 });
    await expect.poll(() => source.lag()).toBe(0n);
    // Woken, not waiting for the minute.
    source.add(numberedEvent("first", "relay", 25));
    relay.wake();
    await expect.poll(() => source.lag()).toBe(0n);
    await relay.stop();
    const firstSeen = [...new Set(published)].map(Number);
    const expected = Array.from({ length: 26 }, (_, number) => number).filter((n) => n % 5 !== 0 || n === 25);
    expect(firstSeen).toEqual(expected);
    expect(published.length).toBeGreaterThan(firstSeen.length);
  });

  test("reports its lag", async () => {
    const source = new MemoryLog();
    source.add(undefined);
    const bus: EventBus = {
      publish: async () => undefined,
      subscribe: () => ({ stop: async () => undefined }),
      close: async () => undefined,
    };
    const relay = startRelay({ name: "test", source, bus, log, idleMs: 60_000 });
    await expect.poll(() => source.lag()).toBe(0n);
    await relay.stop();
  });
});
