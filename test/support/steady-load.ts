import { setTimeout as delay } from "node:timers/promises";
import { eachAtOnce } from "./fault-driver.ts";
import type { FaultWorld } from "./fault-world.ts";
import type { Workload } from "./workload.ts";

const atOnce = 8;
/** Between two runs that begin, in milliseconds: work all the time, and no more than that. */
const everyMs = 500;

/**
 * Starts runs all the time while something is done to the system, at most
 * eight at once, each until it is acknowledged.
 *
 * @param kind what their names begin with
 * @returns how many were acknowledged
 */
export async function underLoad(
  world: Pick<FaultWorld, "start">,
  workload: Workload,
  work: () => Promise<void>,
  kind = "run",
): Promise<number> {
  let isOver = false;
  let started = 0;
  function* names(): Generator<string> {
    while (!isOver) yield `${kind}-${started++}`;
  }
  const load = eachAtOnce(names(), atOnce, async (run) => {
    await world.start(workload, run);
    await delay(everyMs * atOnce);
  });
  const working = work().finally(() => (isOver = true));
  await Promise.all([working, load]);
  return started;
}
