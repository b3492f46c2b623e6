import fc from "fast-check";
import { expect, test } from "vitest";
import { createTokenBuckets } from "./token-bucket.ts";

test("over any time no more pass than the burst and what flowed in, and none is refused that had a token", () => {
  const rate = fc.record({ perSecond: fc.integer({ min: 1, max: 1_000 }), burst: fc.integer({ min: 1, max: 500 }) });
  const pauses = fc.array(fc.integer({ min: 0, max: 2_000 }), { maxLength: 300 });
  fc.assert(
    fc.property(rate, pauses, ({ perSecond, burst }, gaps) => {
      let now = 0;
      const buckets = createTokenBuckets({ maxKeys: 10, now: () => now });
      let tokens = burst;
      for (const gap of gaps) {
        now += gap;
        tokens = Math.min(burst, tokens + (gap * perSecond) / 1_000);
        const waitMs = buckets.take("k", { perSecond, burst });
        // Where a token is just whole, fractions decide; both answers are right.
        if (Math.abs(tokens - 1) < 1e-6) return;
        expect(waitMs === 0).toBe(tokens >= 1);
        if (waitMs === 0) tokens -= 1;
        else expect(waitMs).toBeCloseTo(Math.ceil(((1 - tokens) * 1_000) / perSecond), -0.5);
      }
    }),
  );
});

test("asking takes nothing", () => {
  const buckets = createTokenBuckets({ maxKeys: 10, now: () => 0 });
  const rate = { perSecond: 1, burst: 1 };
  for (let index = 0; index < 5; index++) expect(buckets.waitMs("k", rate)).toBe(0);
  expect(buckets.take("k", rate)).toBe(0);
  expect(buckets.waitMs("k", rate)).toBe(1_000);
});

test("of too many keys the one that was not used for longest is forgotten", () => {
  const buckets = createTokenBuckets({ maxKeys: 2, now: () => 0 });
  const rate = { perSecond: 1, burst: 1 };
  for (const key of ["a", "b", "a", "c"]) buckets.take(key, rate);
  expect(buckets.waitMs("a", rate)).toBe(1_000);
  expect(buckets.waitMs("b", rate)).toBe(0);
});
