import { expect, test } from "vitest";
import { runWorkload } from "../support/run-workload.ts";
import { syncs } from "./syncs.ts";

test("each of 500 entries is on disk before it is acknowledged", async () => {
  const { entries, problems } = await syncs({ workload: runWorkload({ stepMs: 10 }), runs: 50 });
  expect(problems).toEqual([]);
  expect(entries).toBeGreaterThanOrEqual(500);
});
