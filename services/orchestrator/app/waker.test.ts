import pino from "pino";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Waker } from "./waker.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test("what becomes due while a look is under way is found by another one", async () => {
  const woken: string[] = [];
  const due = new Map<string, number>();
  let answer = Promise.withResolvers<void>();
  answer.resolve();
  const waker = new Waker({
    runs: {
      async listDue() {
        const found = [...due].filter(([, wakeAtMs]) => wakeAtMs <= Date.now());
        // The database is slow: what it answers is how it was when it was asked.
        await answer.promise;
        return found.map(([rootId, wakeAtMs]) => ({ rootId, wakeAtMs }));
      },
      async nextDue() {
        await answer.promise;
        return undefined;
      },
    },
    shards: () => [0],
    now: () => Date.now(),
    log: pino({ level: "silent" }),
    wake: async (root) => {
      woken.push(root);
      due.delete(root);
    },
  });
  answer = Promise.withResolvers();
  const looking = waker.look();
  due.set("late", Date.now() + 200);
  waker.at(Date.now() + 200);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(woken).toEqual([]);
  answer.resolve();
  await looking;
  await vi.advanceTimersByTimeAsync(100);
  expect(woken).toEqual(["late"]);
  // And so is what comes afterwards.
  due.set("later", Date.now() + 300);
  waker.at(Date.now() + 300);
  await vi.advanceTimersByTimeAsync(400);
  expect(woken).toEqual(["late", "later"]);
  await waker.stop();
});
