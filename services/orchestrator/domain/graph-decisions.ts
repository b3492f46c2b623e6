/**
 * What a run of a graph needs next, from its state alone: whoever goes on with
 * it comes to the same decisions.
 */
import { AppError } from "../../runtime/errors/app-error.ts";
import { failureOf } from "../../runtime/errors/failure.ts";
import type { StepError, StepPlace } from "./entry.ts";
import { graphLimits, type RetryPolicy } from "./graph/graph.ts";
import type { PlanNode } from "./graph/plan.ts";
import type { Scope } from "./graph/scope.ts";
import { resolve, type Template } from "./graph/template.ts";
import type { GraphRun, StepState } from "./graph-run.ts";
import type { Json } from "./json.ts";

/** What a step's templates and conditions see. */
export function scopeOf(run: GraphRun, own: Pick<Scope, "item" | "index" | "own"> = {}): Scope {
  return { input: run.accepted.input.value ?? null, output: (name) => outputOf(run, run.node(name)), ...own };
}

/** The output of a step that ended: of a fan-out those of its elements; null if there is none. */
export function outputOf(run: GraphRun, node: PlanNode): Json {
  const step = run.steps[node.position];
  if (step?.phase !== "succeeded") return null;
  if (node.task.kind === "fan-out" && step.output === undefined) {
    return step.items.map((item) => item?.output?.value ?? null);
  }
  return step.output?.value ?? null;
}

/** Whether a step that is ready runs: if one of its edges was taken. Throws EVALUATION_FAILED. */
export function isTaken(run: GraphRun, node: PlanNode): boolean {
  if (node.edges.length === 0) return true;
  return node.edges.some(({ from, when }) => {
    const source = run.plan.nodes[from];
    if (source === undefined || run.steps[from]?.phase !== "succeeded") return false;
    return when === undefined || when.holds(scopeOf(run, { own: outputOf(run, source) }));
  });
}

/** The output of a run whose steps have all ended. Throws EVALUATION_FAILED. */
export function outputOfRun(run: GraphRun): Json {
  const { output, finals } = run.plan;
  if (output !== undefined) return resolve(output, scopeOf(run));
  return Object.fromEntries(finals.map((node) => [node.name, outputOf(run, node)]));
}

/** The steps whose compensations are left, in their order: the last effect first. */
export function compensationsLeft(run: GraphRun): readonly PlanNode[] {
  if (run.failing === undefined && run.cancel?.compensate !== true) return [];
  return run.plan.nodes
    .filter((node) => {
      const step = run.steps[node.position];
      if (node.compensation === undefined || step === undefined || step.compensation?.endedAtMs !== undefined)
        return false;
      return step.phase === "succeeded" || mayHaveActed(step);
    })
    .sort((a, b) => (run.steps[b.position]?.endedSeq ?? 0) - (run.steps[a.position]?.endedSeq ?? 0));
}

/** Whether a step that did not succeed may have changed something outside. */
function mayHaveActed(step: StepState): boolean {
  const acted = step.receipt !== undefined && step.receipt !== "not-started";
  return acted || step.items.some((item) => item !== undefined && (item.phase === "succeeded" || mayHaveActed(item)));
}

/** When an attempt that failed is followed by another, in milliseconds from now; undefined if it is not. */
export function retryDelayMs(
  policy: RetryPolicy,
  error: StepError,
  failures: number,
  random: () => number = Math.random,
): number | undefined {
  if (failures >= policy.maxAttempts) return undefined;
  const again =
    policy.reasons.length > 0
      ? policy.reasons.includes(error.reason)
      : error.reason === "TOOL_FAILED" || failureOf(error.reason).retryable;
  if (!again) return undefined;
  const ceiling = Math.min(policy.initialDelayMs * 2 ** Math.min(failures - 1, 30), policy.maxDelayMs);
  return Math.max(minRetryDelayMs, Math.round(random() * ceiling));
}

/** Nothing is tried again sooner, in milliseconds. */
const minRetryDelayMs = 100;

/** How the elements of a fan-out that can begin are chosen: in order, so many at once. */
export function itemsToBegin(step: StepState | undefined, count: number, concurrency: number): readonly number[] {
  const items = step?.items ?? [];
  let open = 0;
  const chosen: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const item = items[index];
    if (item !== undefined && item.endedAtMs === undefined) open += 1;
    if (item === undefined) chosen.push(index);
  }
  return chosen.slice(0, Math.max(0, concurrency - open));
}

/** The place of an element. */
export function itemPlace(name: string, index: number): StepPlace {
  return { name, index, compensation: false };
}

/** What the templates of a place see besides the run: an element, or what a compensation undoes. Throws EVALUATION_FAILED. */
export function itemScope(
  run: GraphRun,
  { name, index, compensation }: StepPlace,
): Pick<Scope, "item" | "index" | "own"> {
  const node = run.node(name);
  if (compensation) return { own: outputOf(run, node) };
  if (index === undefined) return {};
  const item = listOf(run, node)[index];
  if (item === undefined) throw new AppError("EVALUATION_FAILED", `the list of ${name} has no element ${index}`);
  return { item, index };
}

const lists = new WeakMap<GraphRun, Map<string, readonly Json[]>>();

/** The list of a fan-out that is ready; it never changes, so it is made once. Throws EVALUATION_FAILED. */
export function listOf(run: GraphRun, node: PlanNode): readonly Json[] {
  const known = lists.get(run)?.get(node.name);
  if (known !== undefined) return known;
  if (node.task.kind !== "fan-out") throw new TypeError(`${node.name} is no fan-out`);
  const list = resolve(node.task.over, scopeOf(run));
  if (!Array.isArray(list)) throw new AppError("EVALUATION_FAILED", `${node.name}: what it fans out over is no list`);
  if (list.length > graphLimits.fanOut) {
    throw new AppError("EVALUATION_FAILED", `${node.name}: the list has more than ${graphLimits.fanOut} elements`);
  }
  const ofRun = lists.get(run) ?? new Map<string, readonly Json[]>();
  ofRun.set(node.name, list);
  lists.set(run, ofRun);
  return list;
}

/** What a template says as text: what is no text is written as JSON. Throws EVALUATION_FAILED. */
export function resolveText(template: Template, scope: Scope): string {
  const value = resolve(template, scope);
  return typeof value === "string" ? value : JSON.stringify(value);
}
