import type { FailureReason } from "../../runtime/errors/app-error.ts";
import type { Json, JsonObject } from "./json.ts";

/** Why something failed. */
export interface StepError {
  readonly reason: FailureReason;
  readonly message: string;
}

/** A tool's definition as a run holds on to it. */
export interface PinnedTool {
  readonly toolId: string;
  readonly digest: string;
  readonly name: string;
  readonly description: string;
  readonly inputSchema: JsonObject;
  /** The contract's own encoding of all of it; opaque here. */
  readonly encoded: Uint8Array;
}

/** An agent's definition as a run holds on to it. */
export interface PinnedAgent {
  readonly agentId: string;
  readonly revision: number;
  readonly digest: string;
  readonly name: string;
  readonly model: string;
  readonly instructions: string;
  /** Names, or `*`. */
  readonly tools: readonly string[];
  /** 0 takes the default. */
  readonly maxToolRounds: number;
  /** 0 takes the default. */
  readonly maxTokens: number;
  /** 0 takes the default. */
  readonly maxDurationMs: number;
  /** The contract's own encoding of the definition; opaque here. */
  readonly encoded: Uint8Array;
}

/** What ends a run early. */
export interface Caps {
  readonly toolRounds: number;
  /** Input and output together. */
  readonly tokens: number;
  /** From the start of the run. */
  readonly durationMs: number;
}

/** A call that a model asks for. `malformed` holds arguments that are no JSON object. */
export interface ToolCall {
  readonly callId: string;
  readonly tool: string;
  readonly arguments: JsonObject;
  readonly malformed: string;
}

/** What a model said. */
export interface ModelResult {
  readonly text: string;
  readonly toolCalls: readonly ToolCall[];
  readonly inputTokens: number;
  readonly outputTokens: number;
}

/** What came of a tool's call; an error is a result, too. */
export type ToolOutcome =
  | { readonly type: "value"; readonly value: Json }
  | { readonly type: "error"; readonly error: StepError };

/** What kind of step an attempt belongs to. */
export type StepPlan =
  | { readonly kind: "model"; readonly round: number; readonly turnsLeftOut: number }
  | { readonly kind: "tool"; readonly round: number; readonly index: number };

/** How a run ended. */
export type RunEnd =
  | { readonly state: "succeeded"; readonly answer: string }
  | { readonly state: "failed"; readonly error: StepError; readonly toolsMayStillRun: readonly string[] }
  | { readonly state: "cancelled"; readonly toolsMayStillRun: readonly string[] };

/** Why a run is cancelled. */
export type CancelCause = "caller" | "interrupted" | "deleted";

/** What a run is given and for whom; fixed when it is accepted. */
export interface RunAccepted {
  readonly type: "run.accepted";
  readonly sessionId: string;
  /** The principal in the contract's encoding; opaque here. */
  readonly principal: Uint8Array;
  readonly requestId: string;
  /** Empty if there is none. */
  readonly traceparent: string;
  readonly agent: PinnedAgent;
  readonly text: string;
  readonly answerSchema: JsonObject | undefined;
}

/** What happened to a run. The fold of these is its state. */
export type EntryBody =
  | RunAccepted
  | {
      readonly type: "run.started";
      readonly tools: readonly PinnedTool[];
      readonly contextTokens: number;
      readonly caps: Caps;
    }
  | { readonly type: "step.started"; readonly stepId: string; readonly attempt: number; readonly plan: StepPlan }
  | {
      readonly type: "step.succeeded";
      readonly stepId: string;
      readonly attempt: number;
      readonly result:
        | ({ readonly kind: "model" } & ModelResult)
        | { readonly kind: "tool"; readonly outcome: ToolOutcome };
    }
  | {
      readonly type: "step.failed";
      readonly stepId: string;
      readonly attempt: number;
      readonly error: StepError;
      readonly retryable: boolean;
    }
  | { readonly type: "answer.rejected"; readonly stepId: string; readonly problems: string }
  | { readonly type: "cancel.requested"; readonly cause: CancelCause; readonly requestId: string }
  | { readonly type: "run.ended"; readonly end: RunEnd; readonly started: boolean };

/** An entry of a run's journal. */
export interface Entry {
  /** Milliseconds since the epoch, by the clock of the process that wrote it. */
  readonly atMs: number;
  readonly body: EntryBody;
}
