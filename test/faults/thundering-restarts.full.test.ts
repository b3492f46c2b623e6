import { expect, test } from "vitest";
import { runWorkload } from "../support/run-workload.ts";
import { thunderingRestarts } from "./thundering-restarts.ts";

test("everything is killed at once and started in any order, ten times: it serves within 30 s, and nothing is lost", async () => {
  const workload = runWorkload({ shape: "one", stepMs: 2_000 });
  const { readyMs, verdict } = await thunderingRestarts({ workload, restarts: 10 });
  expect(verdict.problems).toEqual([]);
  expect(verdict.acked).toBeGreaterThanOrEqual(100);
  expect(verdict.inFlight).toBeGreaterThanOrEqual(8);
  expect(readyMs).toHaveLength(10);
  expect(Math.max(...readyMs)).toBeLessThanOrEqual(30_000);
});
