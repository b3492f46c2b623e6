import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { lostCommits } from "../faults/lost-commits.ts";
import { postgresCrashes } from "../faults/postgres-crashes.ts";
import { syncs } from "../faults/syncs.ts";
import { mutatedEnvironment, shortWorkerLease } from "../support/mutate.ts";
import { runWorkload } from "../support/run-workload.ts";

// The small sets of `npm run test:faults -- postgres cuts syncs`.

const directory = mkdtempSync(join(tmpdir(), "cadre postgres "));
afterAll(() => rmSync(directory, { recursive: true }));

test("PostgreSQL crashes twice under short runs: nothing is lost or doubled", { timeout: 480_000 }, async () => {
  const workload = runWorkload({ shape: "one", stepMs: 0 });
  const { crashes, fewestAcked, verdict } = await postgresCrashes({
    workload,
    runs: 400,
    crashes: 2,
    gapMs: { least: 1_000, most: 3_000 },
  });
  expect(verdict.problems).toEqual([]);
  expect(crashes).toBe(2);
  expect(fewestAcked).toBeGreaterThanOrEqual(200);
});

test("commits whose answers are lost with their connections are neither lost nor repeated", {
  timeout: 480_000,
}, async () => {
  const workload = runWorkload({ stepMs: 10 });
  const settings = mutatedEnvironment(shortWorkerLease, join(directory, "mutations"));
  const { cuts, verdict } = await lostCommits({ workload, runs: 10, cuts: { append: 10, commit: 5 }, settings });
  expect(verdict.problems).toEqual([]);
  expect(cuts).toEqual({ append: 10, commit: 5 });
});

test("each entry is on disk before it is acknowledged", { timeout: 480_000 }, async () => {
  const { entries, problems } = await syncs({ workload: runWorkload({ stepMs: 10 }), runs: 10 });
  expect(problems).toEqual([]);
  expect(entries).toBeGreaterThanOrEqual(100);
});

test("control: with asynchronous commits it is not, and that is seen", { timeout: 480_000 }, async () => {
  const { problems } = await syncs({
    workload: runWorkload({ stepMs: 10 }),
    runs: 3,
    prepare: async (database) => {
      await database.query("alter database cadre set synchronous_commit = off");
      await database.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'cadre' and pid <> pg_backend_pid()",
      );
    },
  });
  expect(problems.join("\n")).toContain("not durable");
});
