import fc from "fast-check";
import { expect, test } from "vitest";
import { AppError } from "../errors/app-error.ts";
import { type ByteLease, createByteBudget } from "./byte-budget.ts";

const limits = { maxInFlightBytes: 1_000, maxInFlightBytesPerTenant: 250 };

function refusal(work: () => void): AppError | undefined {
  try {
    work();
    return undefined;
  } catch (thrown) {
    if (thrown instanceof AppError) return thrown;
    throw thrown;
  }
}

test("whatever requests do, neither the process nor a tenant holds more than its limit, and nothing stays", () => {
  const step = fc.record({
    lease: fc.nat(9),
    act: fc.constantFrom("take", "take", "take", "charge", "giveBack", "release"),
    bytes: fc.nat(200),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const budget = createByteBudget(limits);
      const open = new Map<number, { lease: ByteLease; tenant: string; held: number }>();
      const heldBy = (tenant: string) =>
        [...open.values()].filter((one) => one.tenant === tenant).reduce((sum, { held }) => sum + held, 0);
      const total = () => [...open.values()].reduce((sum, { held }) => sum + held, 0);
      for (const { lease: index, act, bytes } of steps) {
        const source = `source ${index % 2}`;
        const one = open.get(index) ?? { lease: budget.lease(source), tenant: source, held: 0 };
        open.set(index, one);
        if (act === "take") {
          const fits = total() + bytes <= 1_000 && heldBy(one.tenant) + bytes <= 250;
          expect(refusal(() => one.lease.take(bytes)) === undefined).toBe(fits);
          if (fits) one.held += bytes;
        } else if (act === "charge") {
          const org = `org ${index % 3}`;
          const fits = one.held === 0 || heldBy(org) + (one.tenant === org ? 0 : one.held) <= 250;
          if (one.tenant === org) continue;
          expect(refusal(() => one.lease.chargeTo(org)) === undefined).toBe(fits);
          if (fits) one.tenant = org;
        } else if (act === "giveBack") {
          one.lease.giveBack();
          one.held = 0;
        } else {
          one.lease.release();
          one.lease.release();
          open.delete(index);
        }
        expect(budget.used).toBe(total());
        expect(budget.tenants).toBe(
          new Set([...open.values()].filter(({ held }) => held > 0).map(({ tenant }) => tenant)).size,
        );
      }
      for (const { lease } of open.values()) lease.release();
      expect(budget.used).toBe(0);
      expect(budget.tenants).toBe(0);
    }),
  );
});

test.each([
  ["an address", "source", (): AppError | undefined => refusal(() => createByteBudget(limits).lease("a").take(251))],
  [
    "an org",
    "org",
    () => {
      const budget = createByteBudget(limits);
      const first = budget.lease("a");
      first.take(200);
      first.chargeTo("org_1");
      const second = budget.lease("b");
      second.take(100);
      return refusal(() => second.chargeTo("org_1"));
    },
  ],
  [
    "the process",
    "process",
    () => {
      const budget = createByteBudget({ maxInFlightBytes: 100, maxInFlightBytesPerTenant: 1_000 });
      return refusal(() => budget.lease("a").take(101));
    },
  ],
])("past the limit of %s the refusal says whose it is, and when to come back", (_, subject, refuse) => {
  expect(refuse()).toMatchObject({ reason: "OVERLOADED", retryAfterMs: 1_000, quotas: [{ subject }] });
});

test("what comes after the release is nobody's, so it is not taken", () => {
  const budget = createByteBudget(limits);
  const lease = budget.lease("a");
  lease.take(10);
  lease.release();
  expect(refusal(() => lease.take(1))?.reason).toBe("CANCELLED");
  lease.chargeTo("org_1");
  expect(budget.used).toBe(0);
});
