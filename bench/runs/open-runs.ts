import { setTimeout as delay } from "node:timers/promises";
import type { Cadre, RunGraph } from "@cadre/sdk";

const startsAtOnce = 64;
const settledWithinMs = 30_000;

/**
 * Starts runs of a graph that wait, and resolves when all of them do.
 *
 * @returns how many: fewer than `count` if there was no time for more
 * @throws Error if one does not come to wait
 */
export async function openRuns(
  { runs }: Cadre,
  graph: RunGraph<never, unknown>,
  count: number,
  withinMs: number,
): Promise<number> {
  let started = 0;
  const lastStartAt = performance.now() + withinMs;
  const starter = async (): Promise<void> => {
    while (started < count && performance.now() < lastStartAt) {
      started += 1;
      await runs.start({ graph });
    }
  };
  await Promise.all(Array.from({ length: startsAtOnce }, starter));
  const name = graph.name ?? "";
  const deadline = performance.now() + settledWithinMs;
  for (;;) {
    const { items } = await runs.list({ name, states: ["running"], pageSize: 1 }).page();
    if (items.length === 0) return started;
    if (performance.now() > deadline) throw new Error(`runs of ${name} do not come to wait`);
    await delay(50);
  }
}
