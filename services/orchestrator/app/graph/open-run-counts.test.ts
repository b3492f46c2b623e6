import { expect, test } from "vitest";
import { OpenRunCounts } from "./open-run-counts.ts";

test("starts at the same time share a count, which this process keeps up", async () => {
  let counted = 0;
  const counts = new OpenRunCounts(async () => {
    counted += 1;
    return 7;
  });
  expect(await Promise.all(Array.from({ length: 50 }, () => counts.open("a", 100)))).toEqual(Array(50).fill(7));
  expect(counted).toBe(1);
  counts.started("a");
  counts.started("a");
  counts.ended("a");
  expect(await counts.open("a", 100)).toBe(8);
  expect(await counts.open("b", 100)).toBe(7);
  expect(counted).toBe(2);
});

test("a count that failed is made again", async () => {
  let fails = true;
  const counts = new OpenRunCounts(async () => {
    if (fails) throw new Error("no database");
    return 3;
  });
  await expect(Promise.all([counts.open("a", 10), counts.open("a", 10)])).rejects.toThrow("no database");
  fails = false;
  expect(await counts.open("a", 10)).toBe(3);
});
