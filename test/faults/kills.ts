import { setTimeout as delay } from "node:timers/promises";
import type { Topology } from "../support/cadre.ts";
import { describeVerdict, type Verdict } from "../support/checker.ts";
import { reach, say, seededRandom } from "../support/fault-driver.ts";
import { startFaultWorld } from "../support/fault-world.ts";
import type { Workload } from "../support/workload.ts";

export interface KillsOptions {
  readonly topology: Topology;
  readonly workload: Workload;
  readonly runs: number;
  readonly kills: number;
  /** Of each ten kills, how many hit a worker instead of the orchestrator. Default 5. */
  readonly workerKillsInTen?: number;
  /** Settings and environment of the server. */
  readonly settings?: Readonly<Record<string, string>>;
  /** A control is to find problems, so they are no evidence to keep. */
  readonly isControl?: boolean;
}

/** Work between two kills, in milliseconds. */
const gapMs = { least: 50, most: 1_000 } as const;
/** After each so many kills the system is left alone, to see all of it recover. */
const quietEvery = 100;
const quietMs = 13_000;

/**
 * Kills the orchestrator and workers with SIGKILL at random moments while runs
 * are started all the time, evenly over the kills. In the mesh one of the two
 * orchestrators is killed, and started again by the mesh itself.
 */
export async function kills(options: KillsOptions): Promise<Verdict> {
  const { topology, workload, workerKillsInTen = 5 } = options;
  const random = seededRandom(`kills ${topology}`);
  const world = await startFaultWorld({ name: "kills", topology, settings: options.settings ?? {} });
  const startedMs = performance.now();
  let keep = true;
  try {
    const starting: Promise<string>[] = [];
    const startUpTo = (count: number): void => {
      while (starting.length < count) {
        const start = world.start(workload, `run-${starting.length}`);
        start.catch(() => undefined); // thrown when all are waited for
        starting.push(start);
      }
    };
    for (let killed = 0; killed < options.kills; killed += 1) {
      startUpTo(Math.ceil(((killed + 1) / options.kills) * options.runs));
      const seen = world.ledger.records().length;
      const hitsWorker = random.between(1, 10) <= workerKillsInTen;
      const isLast = killed === options.kills - 1;
      const isQuiet = isLast || killed % quietEvery === quietEvery - 1;
      const workMs = random.between(gapMs.least, gapMs.most);
      // A kill of what has not gone on yet hits no step: what works is known by its traces only.
      await reach("work after a kill", () => world.ledger.records().length > seen);
      await delay(workMs);
      if (hitsWorker) await world.killWorker(random.between(0, 1), { isQuiet });
      else if (topology === "dev") await world.killServer({ isQuiet });
      else {
        await reach("an orchestrator", () => world.orchestrators().length > 0);
        const victim = random.pick(world.orchestrators());
        world.note(`orchestrator ${victim}`, { isQuiet });
        process.kill(victim, "SIGKILL");
      }
      // After the last one nothing more is done than to wait for the runs' ends.
      if (isQuiet && !isLast) await delay(quietMs);
    }
    await Promise.all(starting);
    const verdict = await world.judge(workload, { floor: options.runs });
    say(`${options.kills} kills in ${Math.round((performance.now() - startedMs) / 1_000)} s`);
    say(describeVerdict(verdict));
    keep = verdict.problems.length + verdict.slow.length > 0 && options.isControl !== true;
    return verdict;
  } finally {
    await world.dispose(keep);
  }
}
