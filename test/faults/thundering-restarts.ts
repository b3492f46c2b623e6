import { setTimeout as delay } from "node:timers/promises";
import { describeVerdict, type Verdict } from "../support/checker.ts";
import { type Random, reach, say, seededRandom } from "../support/fault-driver.ts";
import { startFaultWorld } from "../support/fault-world.ts";
import { startOwnPostgres } from "../support/own-postgres.ts";
import { ownTime } from "../support/processor-time.ts";
import { startServiceMesh } from "../support/service-mesh.ts";
import type { Workload } from "../support/workload.ts";

export interface ThunderingRestartsOptions {
  /** Runs whose tools work for some time, so that steps are in flight. */
  readonly workload: Workload;
  readonly restarts: number;
}

export interface ThunderingRestartsResult {
  /**
   * From the start of all processes until health said that everything serves,
   * for each restart; without what others had of the processors meanwhile.
   */
  readonly readyMs: readonly number[];
  readonly verdict: Verdict;
}

const runsPerRestart = 12;
/** Work before everything is killed. */
const workMs = { least: 500, most: 2_500 } as const;
/** By how much PostgreSQL is later than the services. */
const postgresLateMs = 1_000;

/**
 * Kills all services, PostgreSQL and the workers with SIGKILL, and starts the
 * services in a random order, with what they depend on last.
 */
export async function thunderingRestarts({
  workload,
  restarts,
}: ThunderingRestartsOptions): Promise<ThunderingRestartsResult> {
  const random = seededRandom("thundering restarts");
  await using opened = new AsyncDisposableStack();
  const postgres = await startOwnPostgres();
  opened.defer(() => postgres.dispose());
  const mesh = await startServiceMesh({ databaseUrl: postgres.url });
  let keep = true;
  const world = await startFaultWorld({ name: "thunder", launch: async () => mesh });
  opened.defer(() => world.dispose(keep));

  const starting: Promise<string>[] = [];
  const startRuns = (): void => {
    for (let count = 0; count < runsPerRestart; count += 1) {
      const start = world.start(workload, `run-${starting.length}`);
      start.catch(() => undefined); // thrown when all are waited for
      starting.push(start);
    }
  };
  const readyMs: number[] = [];
  for (let restart = 0; restart < restarts; restart += 1) {
    const seen = world.ledger.records().length;
    startRuns();
    await reach("work", () => world.ledger.records().length > seen);
    await delay(random.between(workMs.least, workMs.most));
    world.note("everything");
    await Promise.all([mesh.kill(), postgres.stop("killed"), ...[0, 1].map((worker) => world.killWorker(worker))]);
    const startedMs = performance.now();
    const elapsedMs = ownTime();
    for (const service of shuffled(mesh.services, random)) service.start();
    await delay(postgresLateMs);
    await postgres.start();
    await reach("a mesh that serves", () => mesh.isReady(), { everyMs: 100, timeoutMs: 120_000 });
    readyMs.push(Math.round(elapsedMs()));
    say(`ready after ${readyMs.at(-1)} ms (${Math.round(performance.now() - startedMs)} ms with what others did)`);
  }
  await Promise.all(starting);
  const verdict = await world.judge(workload, { floor: restarts * runsPerRestart, healMs: 180_000 });
  say(describeVerdict(verdict));
  keep = verdict.problems.length > 0;
  return { readyMs, verdict };
}

function shuffled<T>(values: readonly T[], random: Random): readonly T[] {
  return values
    .map((value) => ({ value, place: random.next() }))
    .sort((a, b) => a.place - b.place)
    .map(({ value }) => value);
}
