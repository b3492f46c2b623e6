import { expect, test } from "vitest";
import { DatabaseClock } from "./database-clock.ts";

/** What the clock says now, less what the database's would, whose zero is that of the monotonic one. */
function errorOf(clock: DatabaseClock): number {
  return clock.now() - performance.now();
}

test("a reading is taken for the middle of its way", () => {
  const clock = new DatabaseClock();
  const now = performance.now();
  clock.observe(now + 2, now, now + 4);
  expect(Math.abs(errorOf(clock))).toBeLessThanOrEqual(1);
});

test("one that took long does not replace a better one", () => {
  const clock = new DatabaseClock();
  const now = performance.now();
  clock.observe(now + 1, now, now + 2);
  // Read at its very beginning: off by 300 ms.
  clock.observe(now + 1_000, now + 1_000, now + 1_600);
  expect(Math.abs(errorOf(clock))).toBeLessThanOrEqual(1);
  clock.observe(now + 2_000.5, now + 2_000, now + 2_001);
  expect(Math.abs(errorOf(clock))).toBeLessThanOrEqual(1);
});

test("one that took long does when the clock was set meanwhile", () => {
  const clock = new DatabaseClock();
  const now = performance.now();
  clock.observe(now + 1, now, now + 2);
  clock.observe(now + 3_600_000 + 300, now, now + 600);
  expect(errorOf(clock)).toBeGreaterThan(3_599_000);
});

test("the best one grows old", () => {
  const clock = new DatabaseClock();
  const now = performance.now();
  clock.observe(now + 0.5, now, now + 1);
  const later = now + 3_600_000;
  // In an hour clocks may run 360 ms apart, so half of that is nearer.
  clock.observe(later + 150, later, later + 200);
  expect(errorOf(clock)).toBeGreaterThan(40);
});
