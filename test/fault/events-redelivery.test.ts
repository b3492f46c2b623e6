import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { redeliver } from "../faults/redelivery.ts";
import { assertMutated, mutatedEnvironment, mutations } from "../support/mutate.ts";

test("100 events, each delivered ten times, neighbours swapped, over a consumer's death: 100 effects", {
  timeout: 60_000,
}, async () => {
  const verdict = await redeliver({ events: 100, deliveries: 10 });
  expect(verdict).toMatchObject({ effects: 100, distinct: 100 });
  expect(verdict.whenKilled).toBeGreaterThan(0);
});

test("control: without dedup the effects multiply", { timeout: 60_000 }, async () => {
  const edits = mutations["no dedup"];
  const mutationLog = join(mkdtempSync(join(tmpdir(), "mutation-")), "log");
  const environment = mutatedEnvironment(edits, mutationLog);
  const verdict = await redeliver({ events: 100, deliveries: 3, environment });
  assertMutated(edits, mutationLog);
  expect(verdict.distinct).toBe(100);
  expect(verdict.effects).toBeGreaterThanOrEqual(300);
});
