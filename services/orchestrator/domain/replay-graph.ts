import { AppError } from "../../runtime/errors/app-error.ts";
import type { Entry, EntryBody, StepPlace } from "./entry.ts";
import { graphDefaults } from "./graph/graph.ts";
import type { CompiledItemTask, PlanNode } from "./graph/plan.ts";
import { resolve } from "./graph/template.ts";
import { compensationsLeft, isTaken, listOf, resolveText, retryDelayMs, scopeOf } from "./graph-decisions.ts";
import { type GraphRun, placeKey } from "./graph-run.ts";
import type { Json } from "./json.ts";
import { type Action, nextAction } from "./next-action.ts";
import { isOfFork } from "./replay-consequences.ts";
import { isSame, type Problem, valueOf, wordsOf } from "./replay-problem.ts";
import { holds } from "./replay-turn.ts";
import { derivedRunId } from "./step-id.ts";

/** Between two looks at a clock in one decision, in milliseconds, at most. */
const decisionMs = 5_000;

/**
 * Why this code would not have made an entry in this state; undefined if it
 * would. What the fold refuses is not looked at here.
 *
 * @param due whether it is what had to follow, and was compared with that
 * @param before the entry before it
 */
export function problemOf(
  run: GraphRun,
  entry: Entry,
  due: boolean,
  before: EntryBody | undefined,
): Problem | undefined {
  const { body } = entry;
  const found = wordsOf(body);
  const problem = (message: string, expected: string): Problem => ({ message, expected, found });
  if (run.head === 1 && body.type !== "graph.started") return problem("the run does not begin", "graph.started");
  switch (body.type) {
    case "graph.started": {
      const pinned = new Set(body.tools.map(({ name }) => name));
      const missing = run.plan.tools.filter((name) => !pinned.has(name));
      return missing.length === 0
        ? undefined
        : problem("tools are not held on to", `graph.started with ${missing.join(", ")}`);
    }
    case "step.skipped":
      if (due || isOfFork(run, body) || run.accepted.forkedFrom !== undefined) return undefined;
      return decision(run, run.node(body.place.name)) === "skip"
        ? undefined
        : problem("an edge to it was taken", `${body.place.name} begins`);
    case "graph.step.started":
    case "step.waiting":
    case "graph.step.succeeded":
    case "graph.step.failed": {
      if (body.type === "graph.step.succeeded" && body.carried) {
        return isOfFork(run, body) ? undefined : problem("nothing was carried into this run", "its own result");
      }
      return problemOfStep(run, body.place, body, problem) ?? problemOfOutcome(run, entry, due, before, problem);
    }
    case "step.started": {
      const { within } = body.plan;
      if (within === undefined) return problem("a round belongs to no step", "a step of the graph");
      return problemOfStep(run, within, body, problem) ?? problemOfRound(run, body, problem);
    }
    case "cancel.requested":
      if (run.cancel !== undefined) return problem("it is cancelled already", "nothing of a second cancellation");
      return body.cause === "budget" && entry.atMs < run.deadlineMs
        ? problem("its time is not up", "it goes on")
        : undefined;
    case "step.cancelled":
      return mayFly(run, body.place) || run.at(body.place) !== undefined
        ? undefined
        : problem("it was not begun", "nothing of a step that was not begun");
    case "run.failing":
      if (due || isFailed(run, body.step)) return undefined;
      return body.error.reason === "RUN_BUDGET" && body.step === "" && run.begun > 0
        ? undefined
        : problem("no step failed", "nothing fails");
    case "graph.ended":
      return due ? undefined : problemOfEnd(run, body, problem);
    default:
      return undefined;
  }
}

type Say = (message: string, expected: string) => Problem;

/** What a step that is ready does. */
function decision(run: GraphRun, node: PlanNode): "begin" | "skip" | "fail" {
  try {
    return isTaken(run, node) ? "begin" : "skip";
  } catch (error) {
    if (error instanceof AppError) return "fail";
    throw error;
  }
}

/** Whether a step may be under way here. */
function problemOfStep(run: GraphRun, place: StepPlace, body: EntryBody, problem: Say): Problem | undefined {
  const node = run.node(place.name);
  if (place.compensation) {
    const open = run.steps.find((step) => step !== undefined && step.endedAtMs === undefined);
    if (open !== undefined) return problem("it is undone while a step is open", `step.cancelled ${open.place.name}`);
    const [next] = compensationsLeft(run);
    return next === undefined || next === node
      ? undefined
      : problem("it is undone out of order", `compensation of ${next.name}`);
  }
  if (place.index !== undefined) {
    const count = node.task.kind === "fan-out" ? listOf(run, node).length : 0;
    if (place.index >= count) return problem(`its list has ${count} elements`, `an element of ${node.name}`);
  }
  const known = run.steps[node.position];
  if (known !== undefined || !run.isReady(node)) return undefined;
  switch (decision(run, node)) {
    case "begin":
      return undefined;
    case "skip":
      return problem("none of its edges was taken", `step.skipped ${node.name}`);
    case "fail":
      return body.type === "graph.step.failed"
        ? undefined
        : problem("an edge cannot be evaluated", `graph.step.failed ${node.name}`);
  }
}

function problemOfOutcome(
  run: GraphRun,
  { atMs, body }: Entry,
  due: boolean,
  before: EntryBody | undefined,
  problem: Say,
): Problem | undefined {
  switch (body.type) {
    case "step.waiting":
      return problemOfWait(run, body, atMs, problem);
    case "graph.step.succeeded":
      // A fan-out's result was compared with its elements.
      return due && body.output === undefined ? undefined : problemOfSuccess(run, body, atMs, before, problem);
    case "graph.step.failed":
      return due && before?.type !== "approval.decided"
        ? undefined
        : problemOfFailure(run, body, atMs, before, problem);
    default:
      return undefined;
  }
}

function taskAt(run: GraphRun, { name, index, compensation }: StepPlace): PlanNode["task"] | CompiledItemTask {
  const node = run.node(name);
  if (compensation && node.compensation !== undefined) return node.compensation;
  return index !== undefined && node.task.kind === "fan-out" ? node.task.task : node.task;
}

function problemOfWait(
  run: GraphRun,
  { place, stepId, wait }: Extract<EntryBody, { type: "step.waiting" }>,
  atMs: number,
  problem: Say,
): Problem | undefined {
  const task = taskAt(run, place);
  if (run.at(place)?.wait !== undefined) return problem("it waits already", "the end of its waiting");
  if (run.stopping || run.parked !== undefined)
    return problem("nothing begins any more", "the run is stopped or parked");
  switch (task.kind) {
    case "timer": {
      const until = "until" in task.due ? resolve(task.due.until, scopeOf(run)) : undefined;
      const dueAtMs =
        "durationMs" in task.due ? atMs + task.due.durationMs : Date.parse(typeof until === "string" ? until : "");
      const close = wait.for === "timer" && Math.abs(wait.dueAtMs - dueAtMs) <= ("until" in task.due ? 0 : decisionMs);
      return close
        ? undefined
        : problem("it waits for another time", `step.waiting until ${new Date(dueAtMs).toISOString()}`);
    }
    case "signal":
      return wait.for === "signal" && wait.signal === task.signal
        ? undefined
        : problem("it waits for something else", `step.waiting for the message ${task.signal}`);
    case "approval":
      return wait.for === "approval" && wait.prompt === resolveText(task.prompt, scopeOf(run))
        ? undefined
        : problem("it asks for something else", "step.waiting for an approval of its prompt");
    case "child-run": {
      const child = derivedRunId(run.runId, stepId);
      return wait.for === "child" && wait.runId === child
        ? undefined
        : problem("it waits for another run", `step.waiting for ${child}`);
    }
    default:
      return problem(`a step of the kind ${task.kind} does not wait`, `a result of ${placeKey(place)}`);
  }
}

function problemOfSuccess(
  run: GraphRun,
  body: Extract<EntryBody, { type: "graph.step.succeeded" }>,
  atMs: number,
  before: EntryBody | undefined,
  problem: Say,
): Problem | undefined {
  const { place, attempt, output, signalSeq } = body;
  const task = taskAt(run, place);
  const step = run.at(place);
  const wait = step?.wait;
  if (run.parked !== undefined && (task.kind === "signal" || task.kind === "timer")) {
    return problem("the run is parked", "it waits");
  }
  if (signalSeq !== 0 && task.kind !== "signal") return problem("it takes a message", "a result of its own");
  switch (task.kind) {
    case "tool":
      if (attempt === 0) return problem("no attempt was made", "the result of an attempt");
      return output === undefined ? problem("it has no output", "an output") : undefined;
    case "model":
    case "agent": {
      if (attempt === 0 || step?.loop === undefined) return problem("no attempt was made", "the result of an attempt");
      const action = nextAction(step.loop);
      const answer = answerOf(action);
      if (answer === undefined) return problem("its rounds did not come to an answer", action.type);
      return isSame(valueOf(output), answer)
        ? undefined
        : problem("its output is another", "the answer of its last round");
    }
    case "signal": {
      const [first] = run.signals.filter(({ signal }) => signal === task.signal);
      if (first === undefined || first.seq !== signalSeq) {
        return problem("it takes another message", `the message of entry ${first?.seq ?? "none"}`);
      }
      return isSame(valueOf(output), valueOf(first.payload))
        ? undefined
        : problem("its output is another", "the message");
    }
    case "approval": {
      if (before?.type !== "approval.decided" || placeKey(before.place) !== placeKey(place)) {
        return problem("nobody decided", "approval.decided before it");
      }
      const { approved, by, reason } = before;
      if (!approved && !task.continueOnRefusal) return problem("it was refused", "graph.step.failed: APPROVAL_REFUSED");
      const same = isSame(valueOf(output), { approved, by, reason });
      return same ? undefined : problem("its output is another", "the decision");
    }
    case "timer":
      return wait?.for === "timer" && wait.dueAtMs <= atMs ? undefined : problem("its time has not come", "it waits");
    case "child-run":
      return wait?.for === "child" ? undefined : problem("no run was started for it", "step.waiting for a run");
    case "fan-out":
      return listOf(run, run.node(place.name)).length === 0 && isSame(valueOf(output), [])
        ? undefined
        : problem("not all of its elements succeeded", "the results of its elements");
  }
}

function problemOfFailure(
  run: GraphRun,
  { place, error, retryAtMs }: Extract<EntryBody, { type: "graph.step.failed" }>,
  atMs: number,
  before: EntryBody | undefined,
  problem: Say,
): Problem | undefined {
  const task = taskAt(run, place);
  const wait = run.at(place)?.wait;
  if (error.reason === "WAIT_EXPIRED") {
    const expired = (wait?.for === "signal" || wait?.for === "approval") && (wait.expiresAtMs ?? Infinity) <= atMs;
    return expired ? undefined : problem("its time has not come", "it waits");
  }
  if (task.kind === "approval" && error.reason === "APPROVAL_REFUSED") {
    return before?.type === "approval.decided" && !before.approved
      ? undefined
      : problem("nobody refused", "approval.decided before it");
  }
  if (task.kind === "child-run" && error.reason === "CHILD_FAILED" && wait?.for !== "child") {
    return problem("no run was started for it", "step.waiting for a run");
  }
  if (task.kind === "fan-out" && error.reason !== "EVALUATION_FAILED") {
    return problem("none of its elements failed", "the failure of an element before it");
  }
  const policy = place.compensation ? graphDefaults.retry : run.node(place.name).step.retry;
  const retries = task.kind === "tool" || task.kind === "model" || task.kind === "agent";
  const delayMs = retries ? retryDelayMs(policy, error, (run.at(place)?.failures ?? 0) + 1, () => 1) : undefined;
  if (retryAtMs !== undefined) {
    if (delayMs === undefined) return problem("it is not tried again", "a failure for good");
    const longest = atMs + delayMs + decisionMs;
    return retryAtMs <= longest
      ? undefined
      : problem("it is tried again later than it may", `until ${new Date(longest).toISOString()}`);
  }
  // What failed before an attempt was made is not tried again, whatever the policy says.
  const never = error.reason === "EVALUATION_FAILED" || error.reason === "TOOL_NOT_FOUND";
  return delayMs === undefined || never ? undefined : problem("it is tried again", "a failure with another attempt");
}

/** Whether a step may be under way without an entry of its own. */
function mayFly(run: GraphRun, place: StepPlace): boolean {
  const { kind } = taskAt(run, place);
  return kind === "tool" || kind === "model" || kind === "agent" || kind === "fan-out";
}

/** What an agent's or a model's step has as its output, when its rounds are through. */
function answerOf(action: Action): Json | undefined {
  if (action.type === "end" && action.end.state === "succeeded") return { text: action.end.answer };
  return action.type === "check-answer" && holds(action) ? (JSON.parse(action.answer) as Json) : undefined;
}

function problemOfRound(
  run: GraphRun,
  { stepId, attempt, plan }: Extract<EntryBody, { type: "step.started" }>,
  problem: Say,
): Problem | undefined {
  const loop = plan.within === undefined ? undefined : run.at(plan.within)?.loop;
  if (loop === undefined) return undefined;
  const action = nextAction(loop);
  if (plan.kind === "model") {
    if (action.type === "model" && action.stepId === stepId && action.attempt === attempt) return undefined;
  } else if (
    action.type === "tools" &&
    action.calls.some((call) => call.stepId === stepId && call.attempt === attempt)
  ) {
    return undefined;
  }
  return problem("another round is next", action.type);
}

function isFailed(run: GraphRun, step: string): boolean {
  if (step === "") return false;
  return run.steps[run.node(step).position]?.phase === "failed";
}

function problemOfEnd(
  run: GraphRun,
  { end }: Extract<EntryBody, { type: "graph.ended" }>,
  problem: Say,
): Problem | undefined {
  if (end.state === "failed" && isFailed(run, end.step) && !run.stopping) return undefined;
  // A fork whose steps were all carried over has nothing left but its end.
  if (end.state === "succeeded") {
    return run.accepted.forkedFrom === undefined
      ? problem("not all that has to be done is", "the run goes on")
      : undefined;
  }
  if (!run.stopping) return problem("nothing stopped it", "the run goes on");
  const [left] = compensationsLeft(run);
  if (left !== undefined) return problem("not all is undone", `compensation of ${left.name}`);
  const open = run.steps.find((step) => step !== undefined && step.endedAtMs === undefined);
  if (open !== undefined) return problem("a step is open", `step.cancelled ${open.place.name}`);
  const state = run.failing !== undefined || run.cancel?.cause === "budget" ? "failed" : "cancelled";
  return end.state === state ? undefined : problem("it ends otherwise", `graph.ended: ${state}`);
}
