import { RunState, StepState } from "@cadre/gen/cadre/orchestrator/v1/run_pb";

/** How far a run is, in a word. */
export type RunStateName = "running" | "waiting" | "parked" | "succeeded" | "failed" | "cancelled";

const numberOf: Readonly<Record<RunStateName, RunState>> = {
  running: RunState.RUNNING,
  waiting: RunState.WAITING,
  parked: RunState.PARKED,
  succeeded: RunState.SUCCEEDED,
  failed: RunState.FAILED,
  cancelled: RunState.CANCELLED,
};

/** All states of a run. */
export const runStateNames = Object.keys(numberOf) as readonly RunStateName[];

/** The state of a message in a word. */
export function runStateName(state: RunState): RunStateName {
  return RunState[state].toLowerCase() as RunStateName;
}

/** The number of a state in a message. */
export function runStateNumber(name: RunStateName): RunState {
  return numberOf[name];
}

/** Whether nothing of a run follows any more. */
export function hasRunEnded(state: RunState): boolean {
  return state === RunState.SUCCEEDED || state === RunState.FAILED || state === RunState.CANCELLED;
}

/** How far a step is, in a word; `pending` if it was not begun. */
export type StepStateName = "pending" | "running" | "waiting" | "succeeded" | "failed" | "skipped" | "cancelled";

/** The state of a step's message in a word. */
export function stepStateName(state: StepState): StepStateName {
  return StepState[state].toLowerCase() as StepStateName;
}
