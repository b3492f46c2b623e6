import type { StartedCadre } from "./cadre.ts";
import { stepsOfRun } from "./contestant.ts";
import { waiting } from "./graph.ts";
import { startLoad } from "./load.ts";
import { measure, type Plan, warmUp } from "./measure.ts";
import { openRuns } from "./open-runs.ts";

/** Steps a second while so many other runs are open, and wait. */
export interface FlatFigure {
  readonly open: number;
  readonly stepsPerSecond: number;
}

const openCounts = [10, 100, 1_000, 10_000];
const openWithinMs = 30_000;

/** Measures whether open runs cost those that run. */
export async function measureFlat(cadre: StartedCadre, plan: Plan, warmUpMs: number): Promise<readonly FlatFigure[]> {
  const load = startLoad(cadre.request, stepsOfRun);
  try {
    await warmUp(load, plan.atOnce, warmUpMs);
    const figures: FlatFigure[] = [];
    let open = 0;
    for (const count of openCounts) {
      open += await openRuns(cadre.client, waiting, count - open, openWithinMs);
      const { stepsPerSecond } = await measure(cadre, load, plan, stepsOfRun);
      figures.push({ open, stepsPerSecond });
    }
    return figures;
  } finally {
    await load.stop();
  }
}
