import { expect, test } from "vitest";
import { runWorkload } from "../support/run-workload.ts";
import { zombies } from "./zombies.ts";

test("20 owners that were stopped and replaced write nothing and double nothing", async () => {
  const { rounds, accepted, verdict } = await zombies({
    workload: runWorkload({ stepMs: 1_000 }),
    rounds: 20,
    leaseMs: 2_000,
  });
  expect({ rounds, accepted }).toEqual({ rounds: 20, accepted: 0 });
  expect(verdict.problems).toEqual([]);
});
