import { median, quantile } from "../report.ts";
import type { StartedContestant } from "./contestant.ts";
import type { Load } from "./load.ts";
import { cpuSecondsOf } from "./process-tree.ts";

/** How long something is measured. */
export interface Plan {
  /** Runs that are under way at once. */
  readonly atOnce: number;
  readonly rounds: number;
  /** How long a round is to take; it is given a fixed number of runs that takes about that long. */
  readonly roundMs: number;
}

/** Medians over rounds. */
export interface Figures {
  readonly atOnce: number;
  readonly runsPerSecond: number;
  readonly stepsPerSecond: number;
  /** Of a run, from asking for it to its answer. */
  readonly p50Ms: number;
  readonly p95Ms: number;
  /** Seconds of the processor that all processes of the contestant took for 1,000 steps. */
  readonly cpuSeconds: number;
  /** The same, of the process that asks for the runs. */
  readonly driverCpuSeconds: number;
  /** Bytes a step by which the data grew, over all rounds; negative if they shrank. */
  readonly dataBytes: number;
  /** Bytes of log a step, over all rounds; `undefined` where `dataBytes` has them. */
  readonly logBytes: number | undefined;
}

type Round = Pick<Figures, "runsPerSecond" | "p50Ms" | "p95Ms" | "cpuSeconds" | "driverCpuSeconds">;

/** A round may take as much longer than planned before no more runs are asked for. */
const patience = 3;

/** Lets compilers see the code and pools fill, before anything is measured. */
export async function warmUp(load: Load, atOnce: number, forMs: number): Promise<void> {
  await load.drive({ atOnce, runs: Number.MAX_SAFE_INTEGER, startWithinMs: forMs });
}

/** Measures a contestant under a load. `steps` is the number of steps of a run. */
export async function measure(contestant: StartedContestant, load: Load, plan: Plan, steps: number): Promise<Figures> {
  const { atOnce, roundMs } = plan;
  const runs = await runsOfRound(load, plan);
  const rounds: Round[] = [];
  let stepsInAll = 0;
  const diskBefore = await contestant.diskUse();
  for (let round = 0; round < plan.rounds; round++) {
    const before = cpuSecondsOf(contestant.pids());
    const answer = await load.drive({ atOnce, runs, startWithinMs: patience * roundMs });
    const after = cpuSecondsOf(contestant.pids());
    const done = answer.durationsMs.length;
    stepsInAll += done * steps;
    rounds.push({
      runsPerSecond: done / answer.seconds,
      p50Ms: median(answer.durationsMs),
      p95Ms: quantile(answer.durationsMs, 0.95),
      cpuSeconds: (1_000 * (after - before)) / (done * steps),
      driverCpuSeconds: (1_000 * answer.cpuSeconds) / (done * steps),
    });
  }
  const diskAfter = await contestant.diskUse();
  const middle = (figure: keyof Round): number => median(rounds.map((round) => round[figure]));
  return {
    atOnce,
    runsPerSecond: middle("runsPerSecond"),
    stepsPerSecond: middle("runsPerSecond") * steps,
    p50Ms: middle("p50Ms"),
    p95Ms: middle("p95Ms"),
    cpuSeconds: middle("cpuSeconds"),
    driverCpuSeconds: middle("driverCpuSeconds"),
    dataBytes: (diskAfter.dataBytes - diskBefore.dataBytes) / stepsInAll,
    logBytes:
      diskAfter.logBytes === undefined || diskBefore.logBytes === undefined
        ? undefined
        : (diskAfter.logBytes - diskBefore.logBytes) / stepsInAll,
  };
}

/**
 * A fixed number of runs, and not a fixed time: many runs that began together
 * end together, and a time that cuts through such a wave counts it or not.
 */
async function runsOfRound(load: Load, { atOnce, roundMs }: Plan): Promise<number> {
  const trial = await load.drive({ atOnce, runs: Number.MAX_SAFE_INTEGER, startWithinMs: roundMs / 4 });
  const perSecond = trial.durationsMs.length / trial.seconds;
  return atOnce * Math.max(1, Math.round((perSecond * roundMs) / 1_000 / atOnce));
}
