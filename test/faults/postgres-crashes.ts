import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { readServerProcess } from "../../services/runtime/postgres/server-process.ts";
import { describeVerdict, type Verdict } from "../support/checker.ts";
import { eachAtOnce, InfrastructureError, reach, say, seededRandom } from "../support/fault-driver.ts";
import { startFaultWorld } from "../support/fault-world.ts";
import type { Workload } from "../support/workload.ts";

export interface PostgresCrashesOptions {
  /** Short runs. */
  readonly workload: Workload;
  /** Runs at least. */
  readonly runs: number;
  readonly crashes: number;
  /** Between two crashes, in milliseconds, and longer while fewer than 200 runs were acknowledged. Default 5 to 10 s. */
  readonly gapMs?: { readonly least: number; readonly most: number };
  readonly settings?: Readonly<Record<string, string>>;
}

export interface PostgresCrashesResult {
  readonly crashes: number;
  /** Runs acknowledged between two crashes, at least. */
  readonly fewestAcked: number;
  /** From a crash until a run was acknowledged again, in milliseconds, at most. */
  readonly longestAwayMs: number;
  readonly verdict: Verdict;
}

const atOnce = 24;
/** Fewer runs than that between two crashes would say little of either. */
const ackedBetween = 200;
const maxRuns = 20_000;

/**
 * Ends the embedded PostgreSQL at once (SIGQUIT, which is `pg_ctl stop -m
 * immediate`) again and again, and not before 200 runs were acknowledged since
 * the last time; the server starts it again.
 */
export async function postgresCrashes(options: PostgresCrashesOptions): Promise<PostgresCrashesResult> {
  const { workload, runs, gapMs = { least: 5_000, most: 10_000 } } = options;
  const random = seededRandom("postgres crashes");
  const startedMs = performance.now();
  let keep = true;
  const world = await startFaultWorld({ name: "postgres", settings: options.settings ?? {} });
  const ackedAtMs: number[] = [];
  const crashedAtMs: number[] = [];
  let isCrashing = true;
  try {
    const crashing = (async () => {
      while (crashedAtMs.length < options.crashes) {
        const before = ackedAtMs.length;
        await delay(random.between(gapMs.least, gapMs.most));
        await reach("enough runs", () => ackedAtMs.length - before >= ackedBetween, { timeoutMs: 120_000 });
        const server = await readServerProcess(join(world.server.dataDirectory, "postgres"));
        if (server === undefined) throw new InfrastructureError("no PostgreSQL runs");
        world.note(`postgres ${server.pid}`);
        crashedAtMs.push(Date.now());
        process.kill(server.pid, "SIGQUIT");
      }
    })().finally(() => (isCrashing = false));
    let started = 0;
    function* names(): Generator<string> {
      while (started < runs || (isCrashing && started < maxRuns)) yield `run-${started++}`;
    }
    const load = eachAtOnce(names(), atOnce, async (run) => {
      await world.start(workload, run);
      ackedAtMs.push(Date.now());
    });
    await Promise.all([crashing, load]);
    const verdict = await world.judge(workload, { floor: runs, healMs: 180_000 });
    const between = crashedAtMs.map((atMs, index) => {
      const from = crashedAtMs[index - 1] ?? 0;
      return ackedAtMs.filter((ackedMs) => ackedMs > from && ackedMs <= atMs).length;
    });
    const away = crashedAtMs.map((atMs) => (ackedAtMs.find((ackedMs) => ackedMs > atMs) ?? Number.NaN) - atMs);
    const result = {
      crashes: crashedAtMs.length,
      fewestAcked: Math.min(...between),
      longestAwayMs: Math.max(...away.filter(Number.isFinite)),
    };
    say(`${JSON.stringify(result)} in ${Math.round((performance.now() - startedMs) / 1_000)} s`);
    say(describeVerdict(verdict));
    keep = verdict.problems.length > 0;
    return { ...result, verdict };
  } finally {
    await world.dispose(keep);
  }
}
