import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { Failpoint } from "../../services/runtime/failpoint/failpoint.ts";
import { failpoints, placesOf } from "../faults/failpoints.ts";
import type { FailpointAction } from "../support/failpoints.ts";
import { mutatedEnvironment, shortWorkerLease } from "../support/mutate.ts";

// The small set of `npm run test:faults -- failpoints`: each place once in one
// way, and the places around effects and commits by a death before and behind them.

const directory = mkdtempSync(join(tmpdir(), "cadre failpoints "));
afterAll(() => rmSync(directory, { recursive: true }));

/** Between what happened and the word that it did. */
const decisive: readonly Failpoint[] = ["journal.append", "tool.execute", "call.begin", "call.end"];

const cases: readonly (readonly [string, readonly Failpoint[], readonly FailpointAction[]])[] = [
  ["each answer is lost once", placesOf("dev"), ["lose"]],
  ["around effects and commits it dies", decisive, ["exit", "exit-after"]],
];

test.each(cases)("%s: nothing is lost and nothing doubled", { timeout: 480_000 }, async (_, names, actions) => {
  const settings = mutatedEnvironment(shortWorkerLease, join(directory, "mutations"));
  const { fired, verdicts, stalled } = await failpoints({
    topology: "dev",
    names,
    actions,
    times: 1,
    startsTogether: true,
    settings,
  });
  expect(verdicts.flatMap(({ problems }) => problems)).toEqual([]);
  expect(stalled).toEqual([]);
  const missed = names.flatMap((name) => actions.map((action) => `${name} ${action}`)).filter((one) => !fired.has(one));
  expect(missed).toEqual([]);
});

test("there are at least twenty places", () => {
  expect(placesOf("dev").length + placesOf("mesh").length).toBeGreaterThanOrEqual(20);
});
