import { expect, test } from "vitest";
import { runWorkload } from "../support/run-workload.ts";
import { lostCommits } from "./lost-commits.ts";

test("200 appends and 100 transactions whose answers are lost are neither lost nor repeated", async () => {
  const workload = runWorkload({ stepMs: 10 });
  const { cuts, verdict } = await lostCommits({ workload, runs: 100, cuts: { append: 200, commit: 100 } });
  expect(verdict.problems).toEqual([]);
  expect(cuts).toEqual({ append: 200, commit: 100 });
});
