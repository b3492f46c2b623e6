import { setTimeout as delay } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { RunState } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import type { StartedCadre } from "./cadre.ts";

const startsAtOnce = 64;
const settledWithinMs = 30_000;

/** Starts runs of a graph that wait, and resolves when all of them do. @throws Error if one does not */
export async function openRuns(
  { runs }: StartedCadre,
  graph: MessageInitShape<typeof GraphSchema>,
  count: number,
): Promise<void> {
  let started = 0;
  const starter = async (): Promise<void> => {
    while (started < count) {
      started += 1;
      await runs.startRun({ definition: { case: "graph", value: graph } }, { timeoutMs: settledWithinMs });
    }
  };
  await Promise.all(Array.from({ length: startsAtOnce }, starter));
  const deadline = performance.now() + settledWithinMs;
  for (;;) {
    const filter = { states: [RunState.RUNNING], name: graph.name ?? "" };
    const { runs: running } = await runs.listRuns({ filter, pageSize: 1 }, { timeoutMs: settledWithinMs });
    if (running.length === 0) return;
    if (performance.now() > deadline) throw new Error(`runs of ${graph.name} do not come to wait`);
    await delay(50);
  }
}
