/**
 * What follows from an entry of a graph's run without anything being done: the
 * entries that are stored with it, and what is begun when they are committed.
 * The owner of a run derives it, and a replay holds histories against it.
 */
import type { EntryBody, StepError, StepPlace } from "./entry.ts";
import type { PlanNode } from "./graph/plan.ts";
import { isTaken, listOf, outputOfRun } from "./graph-decisions.ts";
import { type GraphRun, placeOf } from "./graph-run.ts";
import { failed, inline, succeeded, toStepError } from "./step-entries.ts";

/** What has to be begun once a change is committed. */
export type Begin =
  | { readonly what: "step" | "items"; readonly node: PlanNode }
  | { readonly what: "stop"; readonly node?: undefined };

/** What follows from an entry. */
export interface Consequences {
  readonly bodies: readonly EntryBody[];
  readonly begins: readonly Begin[];
}

const nothing: Consequences = { bodies: [], begins: [] };
const stop: Consequences = { bodies: [], begins: [{ what: "stop" }] };

/**
 * What follows from an entry that was just applied.
 *
 * @param busy whether attempts of the run's steps are under way: a run that fails then has to stop them first
 */
export function consequencesOf(run: GraphRun, body: EntryBody, busy: boolean): Consequences {
  switch (body.type) {
    case "graph.step.succeeded":
    case "step.skipped":
      return afterSuccess(run, body.place, busy);
    case "graph.step.failed":
      return body.retryAtMs === undefined ? afterFailure(run, body.place, body.error, busy) : nothing;
    case "run.failing":
      return stop;
    default:
      return nothing;
  }
}

function afterSuccess(run: GraphRun, place: StepPlace, busy: boolean): Consequences {
  if (place.compensation) return stop;
  if (run.stopping) return nothing;
  const node = run.node(place.name);
  if (place.index !== undefined) return afterItem(run, node);
  const bodies: EntryBody[] = [];
  const begins: Begin[] = [];
  for (const position of node.next) {
    const next = run.plan.nodes[position];
    if (next === undefined || run.steps[position] !== undefined || !run.isReady(next)) continue;
    const body = insteadOf(run, next);
    if (body === undefined) begins.push({ what: "step", node: next });
    else bodies.push(body);
  }
  if (bodies.length > 0 || !run.isSettledWhole()) return { bodies, begins };
  return { bodies: endOfSuccess(run, busy), begins };
}

/** What is stored instead of beginning a step that is ready; undefined if it begins. */
function insteadOf(run: GraphRun, node: PlanNode): EntryBody | undefined {
  try {
    return isTaken(run, node) ? undefined : { type: "step.skipped", place: placeOf(node.name) };
  } catch (error) {
    return evaluationFailed(run, placeOf(node.name), error);
  }
}

function afterItem(run: GraphRun, node: PlanNode): Consequences {
  const step = run.steps[node.position];
  if (node.task.kind !== "fan-out" || step === undefined) return nothing;
  const done = step.items.filter((item) => item?.phase === "succeeded").length;
  if (done < listOf(run, node).length) return { bodies: [], begins: [{ what: "items", node }] };
  return { bodies: [succeeded(step.place, step.stepId, 1, undefined)], begins: [] };
}

function afterFailure(run: GraphRun, place: StepPlace, error: StepError, busy: boolean): Consequences {
  if (place.compensation) return stop;
  if (run.stopping) return nothing;
  if (place.index === undefined) return { bodies: endOfFailure(run, place.name, error, busy), begins: [] };
  const parent = placeOf(place.name);
  return { bodies: [failed(parent, run.stepIdAt(parent), 1, error)], begins: [] };
}

/** Ends a run whose steps have all ended. */
export function endOfSuccess(run: GraphRun, busy: boolean): readonly EntryBody[] {
  try {
    return [{ type: "graph.ended", end: { state: "succeeded", output: inline(outputOfRun(run)) } }];
  } catch (error) {
    return endOfFailure(run, "", toStepError(error), busy);
  }
}

/** Ends a run that nothing has to be stopped or undone for; else says that it is going to fail. */
export function endOfFailure(run: GraphRun, step: string, error: StepError, busy: boolean): readonly EntryBody[] {
  const open = busy || run.allSteps().some((each) => each.endedAtMs === undefined);
  if (open || hasToUndo(run)) return [{ type: "run.failing", step, error }];
  return [{ type: "graph.ended", end: { state: "failed", error, step } }];
}

/** Whether a step was begun that has a compensation. */
function hasToUndo(run: GraphRun): boolean {
  return run.plan.nodes.some((node) => node.compensation !== undefined && run.steps[node.position] !== undefined);
}

/** The entry of a step whose templates or conditions give no value. Throws what is no fault of theirs. */
export function evaluationFailed(run: GraphRun, place: StepPlace, error: unknown): EntryBody {
  return failed(place, run.stepIdAt(place), (run.at(place)?.failures ?? 0) + 1, toStepError(error));
}
