import type { DefinedTool } from "../define-tool.ts";
import type { CadreErrorReason } from "../error.ts";
import type { JsonObject } from "../json.ts";
import type { RunGraph } from "../runs/run-definition.ts";
import type { InferInput, StandardSchema } from "../standard-schema.ts";
import type { Reference, Template } from "./reference.ts";

/** What callbacks are given: the run's input, and the outputs of the steps that stand before, by name. */
export type StepContext<Input, Steps> = { readonly input: Reference<Input> } & {
  readonly [Name in keyof Steps]: Reference<Steps[Name]>;
};

/** What callbacks in the body of a fan-out are given, too. */
export interface ItemContext<Item> {
  /** The element. */
  readonly item: Reference<Item>;
  /** Its position, from 0. */
  readonly index: Reference<number>;
}

/** A tool that `defineTool` made, or the name of one. */
export type ToolOrName = string | DefinedTool;

/** What a tool takes; anything, if only its name is known. */
export type ArgumentsOf<Tool extends ToolOrName> =
  Tool extends DefinedTool<infer Args, unknown> ? Args : Readonly<Record<string, unknown>>;

/** What a tool gives; not known, if only its name is. */
export type ResultOf<Tool extends ToolOrName> = Tool extends DefinedTool<unknown, infer Result> ? Result : unknown;

/** A step that this one waits for. */
export type After<Name extends string> = Name | { readonly step: Name /** CEL. */; readonly when?: string };

/** How a failed attempt is tried again. */
export interface GraphRetry {
  /** Attempts in all, the first included; 5 unless said, 1 for none. */
  readonly maxAttempts?: number;
  /** 200 unless said; at least 100. */
  readonly initialDelayMs?: number;
  /** 60,000 unless said. */
  readonly maxDelayMs?: number;
  /** What is tried again; unless said, what is marked as retryable, and `TOOL_FAILED`. */
  readonly reasons?: readonly CadreErrorReason[];
}

/** What every step may say. */
export interface StepOptions<Context, Name extends string, Output> {
  /**
   * The edges that lead to the step. Without them it runs after the steps that
   * it refers to. A condition is CEL over `input`, `steps.<name>.output`, and
   * `output`, which is that of the edge's step.
   */
  readonly after?: readonly After<Name>[];
  readonly retry?: GraphRetry;
  /** What undoes the step, if the run fails or is cancelled later. */
  readonly compensation?: {
    readonly tool: ToolOrName;
    readonly arguments?: (context: Context & { readonly output: Reference<Output> }) => object;
  };
}

/** What a step whose attempts take time may say, too. */
export interface WorkOptions {
  /** How long an attempt may take, in milliseconds; 30,000 for a tool or model, 600,000 for an agent, unless said. */
  readonly timeoutMs?: number;
}

/** A call of a tool. */
export interface ToolTaskOptions<Context, Tool extends ToolOrName> {
  readonly tool: Tool;
  /** The arguments; none unless said. */
  readonly arguments?: (context: Context) => Template<ArgumentsOf<Tool>>;
}

/** A question to a model. */
export interface ModelTaskOptions<Context, Answer extends StandardSchema | undefined> {
  /** The org's default one unless said. */
  readonly model?: string;
  /** What the model is told first. */
  readonly instructions?: string;
  /** The message, or what makes it; what is no text is written as JSON. */
  readonly prompt: string | ((context: Context) => unknown);
  /** What the answer is held to; a text unless said. */
  readonly answer?: Answer;
  /** The JSON Schema of the answer, for a validator that gives none. */
  readonly answerSchema?: JsonObject;
}

/** What a model or an agent gives: its text, or what the answer is held to. */
export type AnswerOf<Answer extends StandardSchema | undefined> = Answer extends StandardSchema
  ? InferInput<Answer>
  : { readonly text: string };

/** Work for an agent of the org. */
export interface AgentTaskOptions<Context, Answer extends StandardSchema | undefined> {
  readonly agent: string;
  /** The message, or what makes it; what is no text is written as JSON. */
  readonly message: string | ((context: Context) => unknown);
  /** What the answer is held to; a text unless said. */
  readonly answer?: Answer;
  /** The JSON Schema of the answer, for a validator that gives none. */
  readonly answerSchema?: JsonObject;
}

/** A run that is started and waited for. */
export interface ChildRunTaskOptions<Context, ChildInput, ChildOutput> {
  /** What it runs: the graph of the agent of a name, or a graph. */
  readonly run: string | RunGraph<ChildInput, ChildOutput>;
  /** Its input; null unless said. */
  readonly input?: (context: Context) => Template<ChildInput>;
}

/** What a person is asked. */
export interface ApprovalTaskOptions<Context> {
  /** The question, or what makes it; what is no text is written as JSON. */
  readonly prompt: string | ((context: Context) => unknown);
  /** After which the step fails with `WAIT_EXPIRED`, in milliseconds; never unless said. */
  readonly expiresAfterMs?: number;
  /** A refusal is an output like an approval, instead of `APPROVAL_REFUSED`. */
  readonly continueOnRefusal?: boolean;
}

/** What an approval gives. */
export interface ApprovalOutput {
  readonly approved: boolean;
  /** Who decided. */
  readonly by: string;
  readonly reason: string;
}

/** How long a timer waits, or until when. */
export type TimerTaskOptions<Context> =
  | { readonly durationMs: number; readonly until?: undefined }
  | { readonly until: (context: Context) => Template<string>; readonly durationMs?: undefined };

/** Which message a step waits for. */
export interface SignalTaskOptions<Payload extends StandardSchema | undefined> {
  readonly signal: string;
  /** Gives the type of the message's payload; nothing is held to it. */
  readonly payload?: Payload;
  /** After which the step fails with `WAIT_EXPIRED`, in milliseconds; never unless said. */
  readonly expiresAfterMs?: number;
}
