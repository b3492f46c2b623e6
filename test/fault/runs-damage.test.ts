import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { damage } from "../faults/damage.ts";
import { assertMutated, mutatedEnvironment, mutations } from "../support/mutate.ts";
import { runWorkload } from "../support/run-workload.ts";

// The small set of `npm run test:faults -- damage`.

const directory = mkdtempSync(join(tmpdir(), "cadre damage "));
afterAll(() => rmSync(directory, { recursive: true }));

/** Long enough to be all open at one time. */
const workload = runWorkload({ stepMs: 1_200 });

test("a stored run that was damaged is found out and not executed; the others go on", {
  timeout: 480_000,
}, async () => {
  const { found, executed, verdict } = await damage({
    workload,
    counts: { byte: 10, moved: 4, tail: 2, "old-row": 2 },
    sound: 4,
    entries: 6,
  });
  for (const [kind, { damaged, detected }] of Object.entries(found))
    expect(`${kind} ${detected}`).toBe(`${kind} ${damaged}`);
  expect(executed).toEqual([]);
  expect(verdict.problems).toEqual([]);
});

test("control: when nobody looks at the hashes, changed bytes go unnoticed", { timeout: 480_000 }, async () => {
  const log = join(directory, "mutations");
  const edits = mutations["no look at the hashes"];
  const { found } = await damage({
    workload,
    counts: { byte: 16, moved: 0, tail: 0, "old-row": 0 },
    sound: 1,
    entries: 6,
    settings: mutatedEnvironment(edits, log),
    isControl: true,
  });
  assertMutated(edits, log);
  expect(found.byte.detected).toBeLessThan(found.byte.damaged);
});
