import { expect, test } from "vitest";
import { newId, toUuid } from "../../../runtime/ids/id.ts";
import type { GraphRun } from "../../domain/graph-run.ts";
import type { Committer } from "../../store/committer.ts";
import { RunJournal } from "./run-journal.ts";

test("what will be due is told behind its commit: before it, nobody who looks finds it", async () => {
  const told: string[] = [];
  const { promise: committed, resolve: commit } = Promise.withResolvers<void>();
  const committer: Pick<Committer, "submit"> = {
    async submit() {
      await committed;
      told.push("stored");
      return [];
    },
  };
  const runId = newId("run");
  const journal = new RunJournal({
    rootUuid: toUuid("run", runId),
    epoch: 1n,
    committer: committer as Committer,
    now: () => 1_000,
    onWake: (atMs) => told.push(`due at ${atMs}`),
  });
  const run: Pick<GraphRun, "runId" | "ended" | "parked" | "wakeAtMs"> = {
    runId,
    ended: undefined,
    parked: undefined,
    wakeAtMs: 1_000,
  };
  const storing = journal.store(run as GraphRun, [], 1_000, false);
  await new Promise((resolve) => setImmediate(resolve));
  expect(told).toEqual([]);
  commit();
  await storing;
  expect(told).toEqual(["stored", "due at 1000"]);
});
