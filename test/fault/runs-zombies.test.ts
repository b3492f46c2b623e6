import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { zombies } from "../faults/zombies.ts";
import { assertMutated, functionMutations, mutatedEnvironment, mutateFunction, mutations } from "../support/mutate.ts";
import { runWorkload } from "../support/run-workload.ts";

// The small set of `npm run test:faults -- zombies`: an owner is stopped with
// steps in flight for twice its lease, replaced, and woken.

const directory = mkdtempSync(join(tmpdir(), "cadre zombies "));
afterAll(() => rmSync(directory, { recursive: true }));

const workload = runWorkload({ stepMs: 1_000 });
const leaseMs = 2_000;

test("nothing is accepted from an owner that was replaced, and no effect doubled", { timeout: 480_000 }, async () => {
  const { accepted, verdict } = await zombies({ workload, rounds: 1, leaseMs });
  expect(accepted).toBe(0);
  expect(verdict.problems).toEqual([]);
});

test("control: without the fence it goes on writing", { timeout: 480_000 }, async () => {
  const log = join(directory, "mutations");
  const edits = mutations["no fence in the process"];
  const { accepted } = await zombies({
    workload,
    rounds: 1,
    leaseMs,
    settings: mutatedEnvironment(edits, log),
    prepare: (database) => mutateFunction(database, functionMutations["no fence in append"]),
    isControl: true,
  });
  assertMutated(edits, log);
  expect(accepted).toBeGreaterThan(0);
});
