import { expect, test } from "vitest";
import { createRandomPool } from "./random-pool.ts";

test("bytes are handed out once, also over a refill", () => {
  let next = 0;
  const take = createRandomPool((pool) => pool.forEach((_, index) => (pool[index] = next++ % 251)));
  const taken = Array.from({ length: 1_000 }, () => [...take(7)]).flat();
  // A refill drops the last 4096 % 7 bytes of a pool.
  const expected = Array.from({ length: Math.ceil(7_000 / 4_095) * 4_096 }, (_, index) => index % 251)
    .filter((_, index) => index % 4_096 < 4_095)
    .slice(0, 7_000);
  expect(taken).toEqual(expected);
});

test("more than the pool holds is refused", () => {
  expect(() => createRandomPool()(4_097)).toThrow(RangeError);
});
