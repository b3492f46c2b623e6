import { expect, test } from "vitest";
import { runWorkload } from "../support/run-workload.ts";
import { damage } from "./damage.ts";

test("200 changed bytes, 50 moved rows, 20 tails and 20 old rows are all found out, and nothing of them runs", async () => {
  const { found, executed, verdict } = await damage({
    // Long enough that the first of three hundred runs has not ended when the last one has steps behind it.
    workload: runWorkload({ stepMs: 6_000 }),
    counts: { byte: 200, moved: 50, tail: 20, "old-row": 20 },
    sound: 10,
    entries: 6,
  });
  for (const [kind, { damaged, detected }] of Object.entries(found)) {
    expect(`${kind} ${detected}`).toBe(`${kind} ${damaged}`);
  }
  expect(executed).toEqual([]);
  expect(verdict.problems).toEqual([]);
});
