import type { RunEnd, ToolCall } from "./entry.ts";
import type { JsonObject } from "./json.ts";
import type { Run, ToolStep } from "./run.ts";
import { modelStepId, toolStepId } from "./step-id.ts";

/** How often a model step may fail before its run does. Attempts that a crash cut short do not count. */
export const maxModelFailures = 3;

/** How many tools a model may call at once. */
export const maxCallsPerRound = 64;

/** How often a model may repair an answer that does not hold to its schema. */
export const maxRepairs = 1;

/** A tool call to make, or to make again. */
export interface PlannedCall {
  readonly stepId: string;
  readonly index: number;
  readonly attempt: number;
  readonly call: ToolCall;
  /** The attempt whose output is void; undefined for a first attempt. */
  readonly discards: number | undefined;
}

/** What a run needs next. */
export type Action =
  /** Fix what the run depends on. */
  | { readonly type: "start" }
  | {
      readonly type: "model";
      readonly stepId: string;
      readonly round: number;
      readonly attempt: number;
      /** The attempt whose text is void; undefined for a first attempt. */
      readonly discards: number | undefined;
    }
  | { readonly type: "tools"; readonly round: number; readonly calls: readonly PlannedCall[] }
  /** Hold the answer to its schema, then end or reject it. */
  | {
      readonly type: "check-answer";
      readonly stepId: string;
      readonly answer: string;
      readonly schema: JsonObject;
    }
  /** Tell the tools in flight, then end as `end` says. */
  | { readonly type: "stop"; readonly inFlight: readonly PlannedCall[] }
  | { readonly type: "end"; readonly end: RunEnd }
  | { readonly type: "nothing" };

/**
 * Decides what a run needs next, from its state alone: whoever continues it
 * after a crash comes to the same decision.
 */
export function nextAction(run: Run): Action {
  if (run.ended !== undefined) return { type: "nothing" };
  if (run.cancel !== undefined) return { type: "stop", inFlight: callsInFlight(run) };
  if (run.started === undefined) return { type: "start" };
  const last = run.rounds.at(-1);
  if (last === undefined) return modelRound(run, 1);
  if (last.phase === "failed" && (!last.retryable || last.failures >= maxModelFailures)) {
    const error = last.error ?? { reason: "MODEL_FAILED", message: "the model failed" };
    return { type: "end", end: { state: "failed", error, toolsMayStillRun: [] } };
  }
  if (last.result === undefined) {
    return {
      type: "model",
      stepId: last.stepId,
      round: last.round,
      attempt: last.attempt + 1,
      discards: last.attempt,
    };
  }
  const { toolCalls, text } = last.result;
  if (toolCalls.length > 0) {
    const { caps } = run.started;
    if (last.round > caps.toolRounds) return limitReached(`more than ${caps.toolRounds} rounds of tools`);
    if (tokensUsed(run) >= caps.tokens) return limitReached(`more than ${caps.tokens} tokens`);
    if (toolCalls.length > maxCallsPerRound) return limitReached(`more than ${maxCallsPerRound} tools at once`);
    const calls = toolCalls.flatMap((call, index) =>
      last.tools[index]?.outcome === undefined ? [plannedCall(run, last.round, index, call, last.tools[index])] : [],
    );
    return calls.length > 0 ? { type: "tools", round: last.round, calls } : modelRound(run, last.round + 1);
  }
  if (last.rejected !== undefined) {
    if (run.rounds.filter((round) => round.rejected !== undefined).length > maxRepairs) {
      const message = `the answer does not hold to the schema: ${last.rejected}`;
      return {
        type: "end",
        end: { state: "failed", error: { reason: "ANSWER_INVALID", message }, toolsMayStillRun: [] },
      };
    }
    if (tokensUsed(run) >= run.started.caps.tokens) return limitReached(`more than ${run.started.caps.tokens} tokens`);
    return modelRound(run, last.round + 1);
  }
  const schema = run.accepted.answerSchema;
  if (schema === undefined) return { type: "end", end: { state: "succeeded", answer: text } };
  return { type: "check-answer", stepId: last.stepId, answer: text, schema };
}

/** Tokens that a run used so far, input and output together. */
export function tokensUsed(run: Run): number {
  return run.usage.inputTokens + run.usage.outputTokens;
}

/** The tool calls that were started and have no outcome. */
export function callsInFlight(run: Run): readonly PlannedCall[] {
  const last = run.rounds.at(-1);
  if (last?.result === undefined) return [];
  return last.result.toolCalls.flatMap((call, index) => {
    const step = last.tools[index];
    return step !== undefined && step.outcome === undefined
      ? [{ stepId: step.stepId, index, attempt: step.attempt, call, discards: undefined }]
      : [];
  });
}

function modelRound(run: Run, round: number): Action {
  return { type: "model", stepId: modelStepId(run.runId, run.prefix, round), round, attempt: 1, discards: undefined };
}

function plannedCall(
  run: Run,
  round: number,
  index: number,
  call: ToolCall,
  before: ToolStep | undefined,
): PlannedCall {
  return {
    stepId: toolStepId(run.runId, run.prefix, round, index),
    index,
    attempt: (before?.attempt ?? 0) + 1,
    call,
    discards: before?.attempt,
  };
}

function limitReached(what: string): Action {
  return {
    type: "end",
    end: {
      state: "failed",
      error: { reason: "TURN_LIMIT", message: `the turn needs ${what}` },
      toolsMayStillRun: [],
    },
  };
}
