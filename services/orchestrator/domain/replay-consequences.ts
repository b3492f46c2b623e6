import type { EntryBody, StepPlace } from "./entry.ts";
import { consequencesOf } from "./graph-consequences.ts";
import { type GraphRun, placeKey } from "./graph-run.ts";
import { type Expected, isSame, valueOf, wordsOf } from "./replay-problem.ts";

/** What has to follow an entry that was just applied, in order. */
export function expectedAfter(run: GraphRun, body: EntryBody): readonly Expected[] {
  if (body.type === "approval.decided") return [outcomeOfDecision(body.place)];
  if (isOfFork(run, body)) return [];
  return consequencesOf(run, body, false).bodies.map((due) => ({
    what: due.type === "graph.ended" ? endInWords(due) : wordsOf(due),
    matches: (next) => isLike(due, next),
  }));
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

function outcomeOfDecision(place: StepPlace): Expected {
  return {
    what: `graph.step.succeeded or graph.step.failed ${placeKey(place)}`,
    matches: (next) =>
      (next.type === "graph.step.succeeded" || next.type === "graph.step.failed") && isAt(next.place, place),
  };
}

/** Whether an entry is the one that is due, but for the words of errors. */
function isLike(due: EntryBody, next: EntryBody): boolean {
  switch (due.type) {
    case "step.skipped":
      return next.type === due.type && isAt(next.place, due.place);
    case "graph.step.succeeded":
      return next.type === due.type && isAt(next.place, due.place) && next.output === undefined;
    case "graph.step.failed":
      return (
        next.type === due.type &&
        isAt(next.place, due.place) &&
        next.error.reason === due.error.reason &&
        next.retryAtMs === undefined
      );
    case "run.failing":
      return next.type === due.type && next.step === due.step && next.error.reason === due.error.reason;
    case "graph.ended":
      return isLikeEnd(due, next);
    default:
      return false;
  }
}

function isLikeEnd({ end }: Extract<EntryBody, { type: "graph.ended" }>, next: EntryBody): boolean {
  if (end.state === "succeeded") {
    return (
      next.type === "graph.ended" &&
      next.end.state === "succeeded" &&
      isSame(valueOf(next.end.output), valueOf(end.output))
    );
  }
  if (end.state !== "failed") return false;
  const failure =
    next.type === "run.failing"
      ? next // Attempts were under way that had to be stopped first; no entry tells of them.
      : next.type === "graph.ended" && next.end.state === "failed"
        ? next.end
        : undefined;
  return failure?.step === end.step && failure.error.reason === end.error.reason;
}

function endInWords({ end }: Extract<EntryBody, { type: "graph.ended" }>): string {
  if (end.state === "succeeded") {
    return `graph.ended: succeeded with ${JSON.stringify(valueOf(end.output)).slice(0, 200)}`;
  }
  return end.state === "failed"
    ? `run.failing or graph.ended: failed: ${end.step} ${end.error.reason}`
    : "graph.ended: cancelled";
}

function isAt(a: StepPlace, b: StepPlace): boolean {
  return placeKey(a) === placeKey(b);
}
