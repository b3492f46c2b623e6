import type { FailureReason } from "../../runtime/errors/app-error.ts";
import type { Graph } from "./graph/graph.ts";
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
  /** Whether it says that it changes nothing, wherever: to call it again, or in vain, is no harm. */
  readonly pure: boolean;
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
  | {
      readonly kind: "model";
      readonly round: number;
      readonly turnsLeftOut: number;
      /** The agent's step in a graph; undefined in a turn. */
      readonly within: StepPlace | undefined;
    }
  | { readonly kind: "tool"; readonly round: number; readonly index: number; readonly within: StepPlace | undefined };

/** How a run ended. */
export type RunEnd =
  | { readonly state: "succeeded"; readonly answer: string }
  | { readonly state: "failed"; readonly error: StepError; readonly toolsMayStillRun: readonly string[] }
  | { readonly state: "cancelled"; readonly toolsMayStillRun: readonly string[] };

/** Why a run is cancelled. */
export type CancelCause = "caller" | "interrupted" | "deleted" | "rolled-back" | "parent" | "budget";

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
  /** Earlier turns of the session that no model is shown any more. */
  readonly leavesOut: readonly string[];
}

/** The place of a step in its graph. */
export interface StepPlace {
  /** The step's name. */
  readonly name: string;
  /** The position of the element of a fan-out; undefined if it is none. */
  readonly index: number | undefined;
  /** Whether it is the compensation of the step of that name. */
  readonly compensation: boolean;
}

/** A JSON value, and where it is kept if that is not the entry itself. */
export interface Payload {
  /** Undefined while a value that is kept elsewhere was not read. */
  readonly value: Json | undefined;
  readonly blob: { readonly sha256: Uint8Array; readonly size: number } | undefined;
}

/** What a step of a graph waits for. Times are milliseconds since the epoch. */
export type Wait =
  | { readonly for: "timer"; readonly dueAtMs: number }
  | { readonly for: "signal"; readonly signal: string; readonly expiresAtMs: number | undefined }
  | { readonly for: "approval"; readonly prompt: string; readonly expiresAtMs: number | undefined }
  | { readonly for: "child"; readonly runId: string };

/** How far a tool had got when its step was cancelled. */
export type Receipt = "not-started" | "partial" | "done" | "may-still-run";

/** Why a run is kept but not executed. */
export interface Parked {
  readonly reason: FailureReason;
  readonly message: string;
  /** What was expected, and what is there instead, a line each. */
  readonly diff: readonly string[];
}

/** What a run of a graph is given and for whom; fixed when it is accepted. */
export interface GraphAccepted {
  readonly type: "graph.accepted";
  /** The principal in the contract's encoding; opaque here. */
  readonly principal: Uint8Array;
  readonly requestId: string;
  /** Empty if there is none. */
  readonly traceparent: string;
  /** The agent whose graph it is; undefined for an inline one. */
  readonly agent: PinnedAgent | undefined;
  readonly graph: Graph;
  readonly digest: string;
  readonly input: Payload;
  readonly labels: Readonly<Record<string, string>>;
  readonly maxSteps: number;
  readonly maxDurationMs: number;
  readonly parent: { readonly runId: string; readonly stepId: string } | undefined;
  /** How many runs are above it. */
  readonly depth: number;
  readonly forkedFrom: { readonly runId: string; readonly checkpoint: number } | undefined;
  readonly scheduleId: string | undefined;
}

/** What a run of a graph holds on to from its start. */
export interface GraphStarted {
  readonly type: "graph.started";
  readonly tools: readonly PinnedTool[];
  readonly agents: readonly PinnedAgent[];
  /** Of agents whose graphs its steps start, by the agent's name. */
  readonly graphs: ReadonlyMap<string, Graph>;
  /** How many tokens each model reads at most, by its name. */
  readonly models: ReadonlyMap<string, number>;
}

/** What happened to a run of a graph, besides the rounds of its agents' steps. */
export type GraphEntryBody =
  | GraphAccepted
  | GraphStarted
  | {
      readonly type: "graph.step.started";
      readonly stepId: string;
      readonly place: StepPlace;
      readonly attempt: number;
    }
  | {
      readonly type: "graph.step.succeeded";
      readonly stepId: string;
      readonly place: StepPlace;
      /** 0 if none was needed. */
      readonly attempt: number;
      /** Undefined for a fan-out: its output is that of its elements. */
      readonly output: Payload | undefined;
      readonly inputTokens: number;
      readonly outputTokens: number;
      /** The number of the message that it took; 0 if it took none. */
      readonly signalSeq: number;
      /** Whether the result is that of the run that this one was forked from. */
      readonly carried: boolean;
    }
  | {
      readonly type: "graph.step.failed";
      readonly stepId: string;
      readonly place: StepPlace;
      readonly attempt: number;
      readonly error: StepError;
      /** When the next attempt begins; undefined: it failed for good. */
      readonly retryAtMs: number | undefined;
      readonly receipt: Receipt | undefined;
    }
  | { readonly type: "step.waiting"; readonly stepId: string; readonly place: StepPlace; readonly wait: Wait }
  | { readonly type: "step.skipped"; readonly place: StepPlace }
  | {
      readonly type: "step.cancelled";
      readonly stepId: string;
      readonly place: StepPlace;
      readonly receipt: Receipt;
    }
  | {
      readonly type: "signal.received";
      readonly signal: string;
      readonly payload: Payload;
      readonly by: string;
      readonly requestId: string;
    }
  | {
      readonly type: "approval.decided";
      readonly place: StepPlace;
      readonly approved: boolean;
      readonly by: string;
      readonly reason: string;
      readonly requestId: string;
    }
  | { readonly type: "run.parked"; readonly parked: Parked }
  | { readonly type: "run.resumed"; readonly principal: Uint8Array; readonly requestId: string }
  | { readonly type: "run.failing"; readonly step: string; readonly error: StepError }
  | { readonly type: "graph.ended"; readonly end: GraphEnd };

/** How a run of a graph ended. */
export type GraphEnd =
  | { readonly state: "succeeded"; readonly output: Payload }
  | { readonly state: "failed"; readonly error: StepError; readonly step: string }
  | { readonly state: "cancelled" };

/** What happened to a run. The fold of these is its state. */
export type EntryBody =
  | GraphEntryBody
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
  | {
      readonly type: "cancel.requested";
      readonly cause: CancelCause;
      readonly requestId: string;
      /** What was said about it. */
      readonly reason: string;
      /** Whether compensations run. */
      readonly compensate: boolean;
    }
  | { readonly type: "run.ended"; readonly end: RunEnd; readonly started: boolean };

/** An entry of a run's journal. */
export interface Entry {
  /** Milliseconds since the epoch, by the clock of the process that wrote it. */
  readonly atMs: number;
  readonly body: EntryBody;
}
