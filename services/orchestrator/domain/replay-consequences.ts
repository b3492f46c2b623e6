import { AppError } from "../../runtime/errors/app-error.ts";
import type { EntryBody, StepPlace } from "./entry.ts";
import type { PlanNode } from "./graph/plan.ts";
import { isTaken, listOf } from "./graph-decisions.ts";
import { type GraphRun, placeKey, placeOf } from "./graph-run.ts";
import { type Expected, finalOutput, isSame, valueOf } from "./replay-problem.ts";

/** What has to follow an entry that was just applied, in order. */
export function expectedAfter(run: GraphRun, body: EntryBody): readonly Expected[] {
  switch (body.type) {
    case "graph.step.succeeded":
    case "step.skipped":
      return isOfFork(run, body) ? [] : afterSuccess(run, body.place);
    case "approval.decided":
      return [
        {
          what: `graph.step.succeeded or graph.step.failed ${placeKey(body.place)}`,
          matches: (next) =>
            (next.type === "graph.step.succeeded" || next.type === "graph.step.failed") && isAt(next.place, body.place),
        },
      ];
    case "graph.step.failed":
      return body.retryAtMs === undefined ? afterFailure(run, body) : [];
    default:
      return [];
  }
}

/** Whether an entry was carried over with a fork: what follows from it was decided in the other run. */
export function isOfFork(run: GraphRun, body: EntryBody): boolean {
  if (run.accepted.forkedFrom === undefined) return false;
  if (body.type === "graph.step.succeeded") return body.carried;
  // Skips stand among what was carried; a fork's own come behind, one at a time.
  return (
    body.type === "step.skipped" &&
    run.steps.every((step) => step === undefined || step.carried || step.phase === "skipped")
  );
}

function afterSuccess(run: GraphRun, place: StepPlace): readonly Expected[] {
  if (place.compensation || run.stopping) return [];
  const node = run.node(place.name);
  if (place.index !== undefined) return afterItem(run, node);
  const expected = node.next.flatMap((position) => {
    const next = run.plan.nodes[position];
    if (next === undefined || run.steps[position] !== undefined || !run.isReady(next)) return [];
    return whenReady(run, next);
  });
  if (expected.length > 0 || !run.plan.nodes.every((each) => run.isSettled(each.position))) return expected;
  const end = finalOutput(run);
  if ("error" in end) return failsRun(run, "", end.error.reason);
  return [
    {
      what: `graph.ended: succeeded with ${JSON.stringify(end.output).slice(0, 200)}`,
      matches: ({ ...body }) =>
        body.type === "graph.ended" && body.end.state === "succeeded" && isSame(valueOf(body.end.output), end.output),
    },
  ];
}

function whenReady(run: GraphRun, node: PlanNode): readonly Expected[] {
  const place = placeOf(node.name);
  try {
    if (isTaken(run, node)) return [];
    return [
      { what: `step.skipped ${node.name}`, matches: (body) => body.type === "step.skipped" && isAt(body.place, place) },
    ];
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    return [failureAt(place, error.reason)];
  }
}

function afterItem(run: GraphRun, node: PlanNode): readonly Expected[] {
  const step = run.steps[node.position];
  if (node.task.kind !== "fan-out" || step === undefined) return [];
  const done = step.items.filter((item) => item?.phase === "succeeded").length;
  if (done < listOf(run, node).length) return [];
  return [
    {
      what: `graph.step.succeeded ${node.name}`,
      matches: (body) =>
        body.type === "graph.step.succeeded" && isAt(body.place, step.place) && body.output === undefined,
    },
  ];
}

function afterFailure(
  run: GraphRun,
  { place, error }: Extract<EntryBody, { type: "graph.step.failed" }>,
): readonly Expected[] {
  if (place.compensation || run.stopping) return [];
  if (place.index !== undefined) return [failureAt(placeOf(place.name), error.reason)];
  return failsRun(run, place.name, error.reason);
}

function failureAt(place: StepPlace, reason: string): Expected {
  return {
    what: `graph.step.failed ${placeKey(place)}: ${reason}, for good`,
    matches: (body) =>
      body.type === "graph.step.failed" &&
      isAt(body.place, place) &&
      body.error.reason === reason &&
      body.retryAtMs === undefined,
  };
}

/** A run fails at once, or says so first while something of it is under way or has to be undone. */
function failsRun(run: GraphRun, step: string, reason: string): readonly Expected[] {
  const undo = run.plan.nodes.some((node) => node.compensation !== undefined && run.steps[node.position] !== undefined);
  return [
    {
      what: `${undo ? "run.failing" : "run.failing or graph.ended: failed"}: ${step} ${reason}`,
      matches: (body) =>
        (body.type === "run.failing" && body.step === step && body.error.reason === reason) ||
        (!undo &&
          body.type === "graph.ended" &&
          body.end.state === "failed" &&
          body.end.step === step &&
          body.end.error.reason === reason),
    },
  ];
}

function isAt(a: StepPlace, b: StepPlace): boolean {
  return placeKey(a) === placeKey(b);
}
