import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { kills } from "../faults/kills.ts";
import { assertMutated, mutatedEnvironment, mutations } from "../support/mutate.ts";
import { runWorkload } from "../support/run-workload.ts";

// The small set of `npm run test:faults -- kills`: runs of twelve calls whose
// orchestrator and workers are killed all the time.

const directory = mkdtempSync(join(tmpdir(), "cadre kills "));
afterAll(() => rmSync(directory, { recursive: true }));

const workload = runWorkload({ stepMs: 200 });

test.each([
  ["dev", 6, 12],
  ["mesh", 4, 8],
] as const)(
  "%s: %d kills at random moments lose nothing and double nothing",
  { timeout: 480_000 },
  async (...given) => {
    const [topology, count, runs] = given;
    const verdict = await kills({ topology, workload, kills: count, runs });
    expect(verdict.problems).toEqual([]);
    expect(verdict).toMatchObject({ acked: runs, succeeded: runs, lost: 0, doubled: 0, late: 0, broken: 0 });
    expect(verdict.inFlight).toBeGreaterThanOrEqual(count / 2);
  },
);

test("control: when each attempt has a key of its own, the same kills double effects", {
  timeout: 480_000,
}, async () => {
  const log = join(directory, "mutations");
  const edits = mutations["a key for each attempt"];
  const settings = mutatedEnvironment(edits, log);
  const verdict = await kills({
    topology: "dev",
    workload,
    kills: 4,
    runs: 12,
    workerKillsInTen: 0,
    settings,
    isControl: true,
  });
  assertMutated(edits, log);
  expect(verdict.doubled).toBeGreaterThan(0);
  expect(verdict.problems.join("\n")).toContain("happened 2 times");
});
