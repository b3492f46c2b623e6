import { setTimeout as delay } from "node:timers/promises";
import type { StartedCadre } from "./cadre.ts";
import { sleeping, timersEach } from "./graph.ts";
import { openRuns } from "./open-runs.ts";
import { cpuSecondsOf, memoryOf } from "./process-tree.ts";

/** What timers cost that are not due. */
export interface TimerFigures {
  readonly timers: number;
  /** The runs that wait for them. */
  readonly runs: number;
  /** How long the idle server was watched each time. */
  readonly idleSeconds: number;
  /** Seconds of the processor that it took meanwhile without a timer, PostgreSQL's among them. */
  readonly cpuSecondsWithout: number;
  /** The same with all timers. */
  readonly cpuSecondsWith: number;
  /** Bytes of memory a run, PostgreSQL's among them. */
  readonly memoryBytes: number;
  /** Runs that were stored a second, when they were made. */
  readonly storedPerSecond: number;
}

interface Idle {
  readonly cpuSeconds: number;
  readonly memoryBytes: number;
}

const storedWithinMs = 120_000;

/** Measures a server that idles, without timers and with at most so many. */
export async function measureTimers(cadre: StartedCadre, atMost: number, idleMs: number): Promise<TimerFigures> {
  const without = await idle(cadre, idleMs);
  const startedAt = performance.now();
  const runs = await openRuns(cadre.client, sleeping, Math.ceil(atMost / timersEach), storedWithinMs);
  const storedInSeconds = (performance.now() - startedAt) / 1_000;
  const all = await idle(cadre, idleMs);
  return {
    timers: runs * timersEach,
    runs,
    idleSeconds: idleMs / 1_000,
    cpuSecondsWithout: without.cpuSeconds,
    cpuSecondsWith: all.cpuSeconds,
    memoryBytes: (all.memoryBytes - without.memoryBytes) / runs,
    storedPerSecond: runs / storedInSeconds,
  };
}

async function idle(cadre: StartedCadre, forMs: number): Promise<Idle> {
  // PostgreSQL tidies up behind whoever was busy, some time later: now, and not while it is watched.
  await cadre.probe.tidyUp();
  const before = cpuSecondsOf(cadre.pids());
  await delay(forMs);
  return { cpuSeconds: cpuSecondsOf(cadre.pids()) - before, memoryBytes: memoryOf(cadre.pids()) };
}
