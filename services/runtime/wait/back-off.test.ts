import { expect, test } from "vitest";
import { backOffMs } from "./back-off.ts";

const waits = { firstMs: 100, mostMs: 5_000 };

test("waits double from the first to the longest, and stay there", () => {
  const all = [1, 2, 3, 6, 7, 8, 1_000_000].map((failures) => backOffMs(failures, waits, () => 1));
  expect(all).toEqual([100, 200, 400, 3_200, 5_000, 5_000, 5_000]);
});

test("a half of each is random", () => {
  expect([0, 0.5, 1].map((random) => backOffMs(2, waits, () => random))).toEqual([100, 150, 200]);
});
