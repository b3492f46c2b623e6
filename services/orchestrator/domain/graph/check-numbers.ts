import { type Graph, graphLimits, type Step, type Task } from "./graph.ts";
import type { Problems } from "./problems.ts";

const dayMs = 86_400_000;
/** What the contract allows; times in milliseconds. */
const ranges = {
  timeout: [1, dayMs],
  heartbeat: [1_000, dayMs],
  attempts: [1, 10],
  initialDelay: [100, 3_600_000],
  maxDelay: [100, dayMs],
  timer: [0, 400 * dayMs],
  expiry: [1, 400 * dayMs],
  concurrency: [1, graphLimits.fanOut],
} as const satisfies Record<string, readonly [least: number, most: number]>;

/** Notes times and counts that are out of their ranges, and times that a step of its kind has no use for. */
export function checkNumbers(graph: Graph, path: string, problems: Problems): void {
  for (const [index, step] of graph.steps.entries()) checkStep(step, `${path}steps[${index}]`, problems);
}

function checkStep(step: Step, place: string, problems: Problems): void {
  const within = (value: number | undefined, field: string, [least, most]: readonly [number, number], unit: string) => {
    if (value === undefined || (value >= least && value <= most)) return;
    problems.add(`${place}.${field}`, `must be ${least} to ${most}${unit}`, "range");
  };
  const { task, retry } = step;
  const { kind } = task.kind === "fan-out" ? task.task : task;
  within(step.timeoutMs, "timeout", ranges.timeout, " ms");
  within(step.heartbeatTimeoutMs, "heartbeat_timeout", ranges.heartbeat, " ms");
  within(retry.maxAttempts, "retry.max_attempts", ranges.attempts, "");
  within(retry.initialDelayMs, "retry.initial_delay", ranges.initialDelay, " ms");
  within(retry.maxDelayMs, "retry.max_delay", ranges.maxDelay, " ms");
  if (step.timeoutMs !== undefined && waits(kind)) {
    problems.add(`${place}.timeout`, "is of no use to a step that waits", "no_use");
  }
  if (step.heartbeatTimeoutMs !== undefined && kind !== "tool") {
    problems.add(`${place}.heartbeat_timeout`, "is of no use to a step that calls no tool", "no_use");
  }
  switch (task.kind) {
    case "approval":
    case "signal":
      return within(task.expiresAfterMs, `${task.kind}.expires_after`, ranges.expiry, " ms");
    case "timer":
      return within("durationMs" in task.due ? task.due.durationMs : undefined, "timer.duration", ranges.timer, " ms");
    case "fan-out":
      return within(task.concurrency, "fan_out.concurrency", ranges.concurrency, "");
    default:
  }
}

function waits(kind: Task["kind"]): boolean {
  return kind === "approval" || kind === "timer" || kind === "signal" || kind === "child-run";
}
