import { expect, test } from "vitest";
import { runWorkload } from "../support/run-workload.ts";
import { postgresCrashes } from "./postgres-crashes.ts";

test("PostgreSQL crashes every five to ten seconds under 5,000 short runs: nothing is lost or doubled", async () => {
  const workload = runWorkload({ shape: "one", stepMs: 0 });
  const { crashes, fewestAcked, verdict } = await postgresCrashes({ workload, runs: 5_000, crashes: 12 });
  expect(verdict.problems).toEqual([]);
  expect(verdict.succeeded).toBeGreaterThanOrEqual(5_000);
  expect(crashes).toBe(12);
  expect(fewestAcked).toBeGreaterThanOrEqual(200);
});
