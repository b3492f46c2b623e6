import { formatFigure } from "../report.ts";
import { type Contestant, type StartedContestant, stepsOfRun } from "./contestant.ts";
import { startLoad } from "./load.ts";
import { type Figures, measure, type Plan, warmUp } from "./measure.ts";
import { countSyncs } from "./sync-count.ts";

/** What was found of a contestant under each load. */
export interface ContestantResult {
  readonly name: string;
  readonly settings: readonly string[];
  readonly figures: readonly Figures[];
  /** Syncs a step with one run at a time; `undefined` where they could not be counted. */
  readonly syncsOfStep: number | undefined;
}

/** The loads that a contestant is measured under, one after the other. */
export interface Comparing {
  readonly plans: readonly Plan[];
  /** Before the first one, and how many runs at once. */
  readonly warmUp: { readonly atOnce: number; readonly forMs: number };
}

/**
 * Measures a contestant that runs, under each load, and tells of each on
 * standard output. A load that it fails under is left out, and makes the
 * process end with 1.
 */
export async function compare(
  { name, settings }: Contestant,
  started: StartedContestant,
  comparing: Comparing,
): Promise<ContestantResult> {
  const load = startLoad(started.request, stepsOfRun);
  try {
    await warmUp(load, comparing.warmUp.atOnce, comparing.warmUp.forMs);
    const figures: Figures[] = [];
    for (const plan of comparing.plans) {
      const under = `${name}, ${plan.atOnce} at once`;
      try {
        const found = await measure(started, load, plan, stepsOfRun);
        const rate = `${formatFigure(found.stepsPerSecond)} steps/s, p50 ${formatFigure(found.p50Ms)} ms`;
        say(`${under}: ${rate}, ${formatFigure(found.cpuSeconds)} s of CPU for 1,000 steps`);
        figures.push(found);
      } catch (error) {
        // What it did under the other loads counts all the same.
        process.exitCode = 1;
        say(`${under}: failed: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
    return { name, settings, figures, syncsOfStep: await countSyncs(started, load, stepsOfRun) };
  } finally {
    await load.stop();
  }
}

/** Starts a contestant, and stops it whatever comes, also when this process is told to end while it starts. */
export async function withStarted<Started extends StartedContestant, Result>(
  contestant: { start(): Promise<Started> },
  use: (started: Started) => Promise<Result>,
): Promise<Result> {
  const starting = contestant.start();
  const onSignal = (): void => {
    void starting.then((started) => started.stop()).finally(() => process.exit(130));
  };
  process.once("SIGINT", onSignal).once("SIGTERM", onSignal);
  try {
    const started = await starting;
    try {
      return await use(started);
    } finally {
      await started.stop();
    }
  } finally {
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
  }
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
