import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BusEvent, EventBus, ReceivedEvent, Subscription } from "../../services/runtime/bus/event-bus.ts";
import { partitionOf } from "../../services/runtime/bus/partition.ts";

/** A place of a driver's own where the contract's topics are. */
export interface EventBusWorld {
  /**
   * Opens one more bus there, as another process would.
   *
   * @param leaseMs after what silence a member loses its partitions, where the driver can be told
   */
  open(leaseMs?: number): Promise<EventBus>;
  /** Closes every bus, and removes what they were opened on. */
  close(): Promise<void>;
}

/** The topics that `describeEventBus` uses. */
export const contractTopics = [
  { name: "first", partitions: 4 },
  { name: "second", partitions: 3 },
] as const;

/** A small event that says which it is. */
export function numberedEvent(topic: string, key: string, number: number): BusEvent {
  return { topic, key, headers: { number: String(number) }, value: Buffer.from(`${key}/${number}`) };
}

/** Collects what a group gets until there are `count` events. */
export function collect(source: EventBus, topic: string, group: string, count: number) {
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

/** Says what every driver promises, and holds one to it. */
export function describeEventBus(driver: string, createWorld: () => Promise<EventBusWorld>): void {
  describe(`the event bus on ${driver}`, { timeout: 60_000 }, () => {
    let world: EventBusWorld;
    let bus: EventBus;
    beforeAll(async () => {
      world = await createWorld();
      bus = await world.open();
    });
    afterAll(() => world.close());

    test("delivers what was published, in order per key, to each group", async () => {
      const events = Array.from({ length: 600 }, (_, index) => numberedEvent("first", `key-${index % 17}`, index));
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
          expect(received.partition).toBe(partitionOf(received.key, 4));
          expect(received.offset).toBe(offsets.get(received.partition) ?? 0n);
          offsets.set(received.partition, received.offset + 1n);
          expect(Math.abs(received.publishedAt.getTime() - Date.now())).toBeLessThan(120_000);
        }
      }
    });

    test("goes on where the group stopped, and is woken by what is new", async () => {
      const topic = "second";
      await bus.publish([numberedEvent(topic, "k", 1), numberedEvent(topic, "k", 2)]);
      const before = collect(bus, topic, "resuming", 2);
      await before.done;
      await before.stop();
      const after = collect(bus, topic, "resuming", 1);
      await bus.publish([numberedEvent(topic, "k", 3)]);
      await after.done;
      await after.stop();
      expect(after.events.map(({ headers }) => headers.number)).toEqual(["3"]);
    });

    test("a call carries more than one request can hold, in order", async () => {
      const key = randomUUID();
      const large = Array.from({ length: 3_000 }, (_, number) => ({
        ...numberedEvent("first", key, number),
        value: Buffer.alloc(1_024, number % 251),
      }));
      const { promise: done, resolve } = Promise.withResolvers<void>();
      const numbers: number[] = [];
      const subscription = bus.subscribe({
        topic: "first",
        group: randomUUID(),
        handle: async (received) => {
          if (received.key !== key) return;
          const number = Number(received.headers.number);
          expect(Buffer.from(received.value).equals(Buffer.alloc(1_024, number % 251))).toBe(true);
          numbers.push(number);
          if (numbers.length === large.length) resolve();
        },
      });
      await bus.publish(large);
      await done;
      await subscription.stop();
      expect(numbers).toEqual(large.map((_, number) => number));
    });

    test("an event whose handler fails comes again, before the next of its partition, and holds up no other", async () => {
      const key = randomUUID();
      const other = keyElsewhere(key);
      const seen: string[] = [];
      const { promise: done, resolve } = Promise.withResolvers<void>();
      const { promise: otherDone, resolve: resolveOther } = Promise.withResolvers<void>();
      await bus.publish([1, 2, 3].map((number) => numberedEvent("first", key, number)));
      const subscription = bus.subscribe({
        topic: "first",
        group: randomUUID(),
        handle: async (received) => {
          if (received.key === other) resolveOther();
          if (received.key !== key) return;
          const number = received.headers.number ?? "";
          seen.push(number);
          if (number === "2" && seen.filter((one) => one === "2").length < 3) {
            await bus.publish([numberedEvent("first", other, 1)]);
            if (seen.filter((one) => one === "2").length === 2) await otherDone;
            throw new Error("not now");
          }
          if (number === "3") resolve();
        },
      });
      await done;
      await subscription.stop();
      expect(seen).toEqual(["1", "2", "2", "2", "3"]);
    });

    test("stopping waits for the handler under way, and what it acknowledged does not come again", async () => {
      const [topic, group, key] = ["second", randomUUID(), randomUUID()];
      const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
      const { promise: released, resolve: release } = Promise.withResolvers<void>();
      const ended: string[] = [];
      await bus.publish([numberedEvent(topic, key, 1)]);
      const subscription = bus.subscribe({
        topic,
        group,
        handle: async (received) => {
          if (received.key !== key) return;
          begin();
          await released;
          ended.push(received.headers.number ?? "");
        },
      });
      await begun;
      const stopped = subscription.stop();
      release();
      await stopped;
      expect(ended).toEqual(["1"]);
      await bus.publish([numberedEvent(topic, key, 2)]);
      const after = await firstOf(bus, topic, group, key);
      expect(after.headers.number).toBe("2");
    });

    test("appenders at once leave no hole and no disorder", async () => {
      const others = [bus, await world.open(), await world.open()];
      const known = collect(bus, "second", randomUUID(), Number.POSITIVE_INFINITY);
      await Promise.all(
        others.map(async (one, writer) => {
          for (let number = 0; number < 60; number++) {
            await one.publish([0, 1, 2, 3].map((key) => numberedEvent("second", `w${writer}-${key}`, number)));
          }
        }),
      );
      const written = () => known.events.filter(({ key }) => key.startsWith("w")).length;
      await expect.poll(written, { timeout: 20_000 }).toBe(720);
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

    test("the members of a group share the partitions out, one member each, and hand them over in order", async () => {
      const [left, right] = [await world.open(600), await world.open(600)];
      const group = randomUUID();
      const keys = twoKeysForEach(group, 4);
      const running = new Map<number, number>();
      const by = new Map<string, Set<number>>();
      const order = new Map<string, number[]>();
      let overlaps = 0;
      const member = (name: string, source: EventBus): Subscription =>
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
      await bus.publish(keys.map((key) => numberedEvent("first", key, 0)));
      await expect.poll(() => by.get("left")?.size, { timeout: 20_000 }).toBe(4);
      const second = member("right", right);
      let number = 0;
      const partitionsOfRight = async () => {
        number += 1;
        await bus.publish(keys.map((key) => numberedEvent("first", key, number)));
        return by.get("right")?.size;
      };
      await expect.poll(partitionsOfRight, { timeout: 20_000, interval: 50 }).toBe(2);
      await first.stop();
      await expect.poll(partitionsOfRight, { timeout: 20_000, interval: 50 }).toBe(4);
      const last = number;
      const haveAll = () => [...order.values()].every((seen) => seen.includes(last));
      await expect.poll(haveAll, { timeout: 20_000 }).toBe(true);
      await second.stop();
      expect(overlaps).toBe(0);
      for (const seen of order.values()) expect(seen).toEqual(Array.from({ length: last + 1 }, (_, index) => index));
    });

    test("a group is told what comes next before it comes, each event once and in order", async () => {
      const key = randomUUID();
      const events = Array.from({ length: 250 }, (_, index) => numberedEvent("second", key, index));
      await bus.publish(events);
      const told: string[] = [];
      const handled: string[] = [];
      let mostAtOnce = 0;
      const { promise: done, resolve } = Promise.withResolvers<void>();
      const subscription = bus.subscribe({
        topic: "second",
        group: "told",
        prepare: async (next) => {
          mostAtOnce = Math.max(mostAtOnce, next.length);
          told.push(...next.filter((event) => event.key === key).map(({ headers }) => headers.number ?? ""));
        },
        handle: async (received) => {
          if (received.key !== key) return;
          const number = received.headers.number ?? "";
          expect(told).toContain(number);
          handled.push(number);
          if (handled.length === events.length) resolve();
        },
      });
      await done;
      await subscription.stop();
      const numbers = events.map(({ headers }) => headers.number);
      expect(handled).toEqual(numbers);
      expect(told).toEqual(numbers);
      expect(mostAtOnce).toBeLessThanOrEqual(100);
    });

    test("a topic that does not exist is a mistake of the program", async () => {
      await expect(bus.publish([numberedEvent("third", "k", 1)])).rejects.toThrow("no topic third");
      expect(() => bus.subscribe({ topic: "third", group: "g", handle: async () => undefined })).toThrow(
        "no topic third",
      );
    });
  });
}

/** The first event of a key that a group gets now. */
async function firstOf(bus: EventBus, topic: string, group: string, key: string): Promise<ReceivedEvent> {
  const { promise, resolve } = Promise.withResolvers<ReceivedEvent>();
  const subscription = bus.subscribe({
    topic,
    group,
    handle: async (received) => {
      if (received.key === key) resolve(received);
    },
  });
  const received = await promise;
  await subscription.stop();
  return received;
}

/** A key of another partition of the topic `first`. */
function keyElsewhere(key: string): string {
  for (;;) {
    const other = randomUUID();
    if (partitionOf(other, 4) !== partitionOf(key, 4)) return other;
  }
}

function twoKeysForEach(prefix: string, partitions: number): readonly string[] {
  const keys: string[] = [];
  for (let index = 0; keys.length < 2 * partitions; index++) {
    const key = `${prefix}-${index}`;
    const inSame = keys.filter((other) => partitionOf(other, partitions) === partitionOf(key, partitions));
    if (inSame.length < 2) keys.push(key);
  }
  return keys;
}
