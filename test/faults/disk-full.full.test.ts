import { expect, test } from "vitest";
import { runWorkload, waitingWorkload } from "../support/run-workload.ts";
import { diskFull, type FullDisk } from "./disk-full.ts";

const workloads = {
  everything: runWorkload({ shape: "one", stepMs: 100 }),
  // Its values are kept as files.
  services: waitingWorkload({ stepMs: 100 }),
  database: runWorkload({ shape: "one", stepMs: 100 }),
} as const satisfies Readonly<Record<FullDisk, unknown>>;

test.each(["everything", "services", "database"] as const)(
  "the disk of %s is full for 30 s: writes are refused, nothing acknowledged is lost, nothing is damaged",
  async (disk) => {
    const result = await diskFull({ disk, workload: workloads[disk], fullMs: 30_000 });
    expect(result.verdict.problems).toEqual([]);
    expect(result.verdict.acked).toBeGreaterThanOrEqual(30);
    expect(result.ended).toEqual([]);
    expect(Object.keys(result.refusals)).not.toEqual([]);
    // What was let in before is waited for until the caller's own deadline.
    for (const reason of Object.keys(result.refusals)) {
      expect(["UNAVAILABLE", "BACKPRESSURE", "DEADLINE_EXCEEDED"]).toContain(reason);
    }
    expect(result.damaged).toEqual([]);
    expect(result.longestReadyMs).toBeLessThan(60_000);
  },
);
