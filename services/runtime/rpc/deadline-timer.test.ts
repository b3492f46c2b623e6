import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createDeadlineTimer } from "./deadline-timer.ts";

beforeEach(() => vi.useFakeTimers({ now: 1_700_000_000_123 }));
afterEach(() => vi.useRealTimers());

test.each([1, 2, 99, 127, 128, 1_000, 29_999.5, 30_000, 900_000, 86_400_000])(
  "a deadline in %d ms passes then, or less than a hundredth of that later",
  (leftMs) => {
    const startedAt = Date.now();
    let passedAfterMs = 0;
    createDeadlineTimer().set(startedAt + leftMs, { expire: () => (passedAfterMs = Date.now() - startedAt) });
    vi.runAllTimers();
    expect(passedAfterMs).toBeGreaterThanOrEqual(Math.floor(leftMs));
    expect(passedAfterMs).toBeLessThan(leftMs * 1.01 + 2);
  },
);

test("one that has passed already, passes at once", () => {
  const expire = vi.fn();
  createDeadlineTimer().set(Date.now() - 1_000, { expire });
  vi.advanceTimersByTime(2);
  expect(expire).toHaveBeenCalledOnce();
});

test("one that was taken out never passes; the others of its time do", () => {
  const timer = createDeadlineTimer();
  const calls = Array.from({ length: 3 }, () => ({ expire: vi.fn() }));
  const seats = calls.map((call) => timer.set(Date.now() + 5_000, call));
  seats[1]?.leave();
  vi.runAllTimers();
  expect(calls.map(({ expire }) => expire.mock.calls.length)).toEqual([1, 0, 1]);
});

test("ten thousand calls a second with a timeout of 30 s hold a few hundred timers", () => {
  const timer = createDeadlineTimer();
  for (let ms = 0; ms < 60_000; ms++) {
    vi.setSystemTime(1_700_000_000_123 + ms);
    for (let call = 0; call < 10; call++) {
      timer.set(Date.now() + 30_000, { expire: () => {} }).leave();
    }
  }
  expect(vi.getTimerCount()).toBeLessThan(600);
});

test("a deadline past the longest timer is waited for that long and no shorter", () => {
  const expire = vi.fn();
  createDeadlineTimer().set(Date.now() + 2 ** 40, { expire });
  vi.advanceTimersByTime(2 ** 31 - 2);
  expect(expire).not.toHaveBeenCalled();
});
