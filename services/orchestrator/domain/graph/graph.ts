import type { FailureReason } from "../../../runtime/errors/app-error.ts";
import type { Json, JsonObject } from "../json.ts";

/**
 * What a run does, with every default filled in. What each part means is said
 * in `cadre/orchestrator/v1/graph.proto`. Fields of type `Json` that the
 * contract calls templates are templates here, too.
 */
export interface Graph {
  readonly name: string;
  readonly description: string;
  readonly inputSchema: JsonObject | undefined;
  /** In the order in which they were given. */
  readonly steps: readonly Step[];
  /** Template; absent: the outputs of the steps that no other waits for, by name. */
  readonly output: Json | undefined;
}

/** A step of a graph. */
export interface Step {
  readonly name: string;
  readonly after: readonly Edge[];
  /** How long an attempt may take, in milliseconds; absent for steps that wait. */
  readonly timeoutMs: number | undefined;
  /** How long the tool may be silent, in milliseconds; absent: until the timeout. */
  readonly heartbeatTimeoutMs: number | undefined;
  readonly retry: RetryPolicy;
  readonly compensation: ToolTask | undefined;
  readonly task: Task;
}

/** A dependency on another step. */
export interface Edge {
  readonly step: string;
  /** A CEL expression; empty for always. */
  readonly when: string;
}

/** When and how often a failed attempt is tried again. */
export interface RetryPolicy {
  /** Attempts in all, the first included. */
  readonly maxAttempts: number;
  readonly initialDelayMs: number;
  readonly maxDelayMs: number;
  /** What is tried again; empty: what the errors' table marks as retryable, and TOOL_FAILED. */
  readonly reasons: readonly FailureReason[];
}

/** What a step does. */
export type Task = ModelTask | ToolTask | AgentTask | ApprovalTask | TimerTask | SignalTask | FanOutTask | ChildRunTask;

/** What can be done for each element of a list. */
export type ItemTask = ModelTask | ToolTask | AgentTask | ChildRunTask;

/** Asks a model once. */
export interface ModelTask {
  readonly kind: "model";
  /** Empty: the default one. */
  readonly model: string;
  readonly instructions: string;
  /** Template. */
  readonly prompt: Json;
  readonly answerSchema: JsonObject | undefined;
}

/** Calls a tool. */
export interface ToolTask {
  readonly kind: "tool";
  readonly tool: string;
  /** Template. */
  readonly arguments: JsonObject;
}

/** Lets an agent work. */
export interface AgentTask {
  readonly kind: "agent";
  readonly agent: string;
  /** Template. */
  readonly message: Json;
  readonly answerSchema: JsonObject | undefined;
}

/** Waits for a person. */
export interface ApprovalTask {
  readonly kind: "approval";
  /** Template. */
  readonly prompt: Json;
  /** In milliseconds; absent: never. */
  readonly expiresAfterMs: number | undefined;
  readonly continueOnRefusal: boolean;
}

/** Waits for a time. */
export interface TimerTask {
  readonly kind: "timer";
  /** How long, in milliseconds, or a template of the time as RFC 3339 text. */
  readonly due: { readonly durationMs: number } | { readonly until: Json };
}

/** Waits for a message. */
export interface SignalTask {
  readonly kind: "signal";
  readonly signal: string;
  /** In milliseconds; absent: never. */
  readonly expiresAfterMs: number | undefined;
}

/** Does something for each element of a list. */
export interface FanOutTask {
  readonly kind: "fan-out";
  /** Template of the list. */
  readonly over: Json;
  /** How many elements are worked on at once. */
  readonly concurrency: number;
  readonly task: ItemTask;
}

/** Starts another run and waits for its end. */
export interface ChildRunTask {
  readonly kind: "child-run";
  /** The agent whose graph it runs, or the graph itself. */
  readonly definition: { readonly agent: string } | { readonly graph: Graph };
  /** Template; absent: the child has no input, which is null. */
  readonly input: Json | undefined;
}

/** What the contract calls a task; the last part of its path. */
export const taskField = {
  model: "model",
  tool: "tool",
  agent: "agent",
  approval: "approval",
  timer: "timer",
  signal: "signal",
  "fan-out": "fan_out",
  "child-run": "child_run",
} as const satisfies Record<Task["kind"], string>;

/** What holds unless a graph says otherwise; times in milliseconds. */
export const graphDefaults = {
  /** Of an attempt of a model or a tool. */
  timeoutMs: 30_000,
  /** Of an attempt of an agent. */
  agentTimeoutMs: 600_000,
  retry: { maxAttempts: 5, initialDelayMs: 200, maxDelayMs: 60_000, reasons: [] },
  /** Elements of a fan-out that are worked on at once. */
  concurrency: 16,
} as const satisfies { retry: RetryPolicy; [name: string]: unknown };

/** How large a graph may be. */
export const graphLimits = {
  /** Steps, those of inline children included. */
  steps: 1_000,
  /** Steps that wait for one another, in a row. */
  depth: 200,
  /** Graphs within each other. */
  childDepth: 8,
  /** Elements of a fan-out. */
  fanOut: 256,
  /** Objects and arrays within each other, in a template. */
  templateDepth: 32,
  /** Of the graph as Protobuf, in bytes. */
  bytes: 1_048_576,
  /** Of all conditions together, in UTF-16 code units. */
  conditionLength: 32_768,
} as const;
