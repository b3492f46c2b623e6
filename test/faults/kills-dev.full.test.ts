import { expect, test } from "vitest";
import { runWorkload } from "../support/run-workload.ts";
import { kills } from "./kills.ts";

test("one process: 400 runs of twelve calls end well under 200 kills at random moments", async () => {
  const verdict = await kills({ topology: "dev", workload: runWorkload({ stepMs: 300 }), kills: 200, runs: 400 });
  expect(verdict.problems).toEqual([]);
  expect(verdict).toMatchObject({ acked: 400, succeeded: 400, lost: 0, doubled: 0, late: 0, broken: 0 });
  expect(verdict.inFlight).toBeGreaterThanOrEqual(100);
  expect(verdict.slow).toEqual([]);
});
