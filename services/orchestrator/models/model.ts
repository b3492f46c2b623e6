import type { Message } from "../domain/conversation.ts";
import type { StepError, ToolCall } from "../domain/entry.ts";
import type { JsonObject } from "../domain/json.ts";

/** A tool that a model may ask for. */
export interface OfferedTool {
  readonly name: string;
  readonly description: string;
  /** JSON Schema of its arguments. */
  readonly inputSchema: JsonObject;
}

/** What a model is asked. */
export interface ModelRequest {
  /** What it is told first; empty for nothing. */
  readonly instructions: string;
  /** The conversation, oldest first; the last one is the user's or a tool's. */
  readonly messages: readonly Message[];
  readonly tools: readonly OfferedTool[];
  /** JSON Schema that the answer is to hold to. */
  readonly answerSchema: JsonObject | undefined;
  /** The same for each attempt of a step, different for each step. */
  readonly stepId: string;
}

/** A part of what a model says. `end` comes last, or the stream was cut. */
export type ModelEvent =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "tool-call"; readonly call: ToolCall }
  | { readonly type: "end"; readonly inputTokens: number; readonly outputTokens: number };

/** A language model. */
export interface Model {
  /** What agents name it, for example `openai/gpt-5` or `scripted`. */
  readonly name: string;
  readonly provider: string;
  /** How many tokens it reads, input and output together. */
  readonly contextTokens: number;
  /** Whether it can be called: false while its key is missing. */
  readonly available: boolean;
  /**
   * Asks the model. The iteration ends with an `end` event, or throws
   * `ModelCallError`; when the signal aborts, it throws what it likes.
   */
  stream(request: ModelRequest, signal: AbortSignal): AsyncIterable<ModelEvent>;
}

/** A call of a model failed. */
export class ModelCallError extends Error {
  override readonly name = "ModelCallError";
  readonly error: StepError;
  /** Whether another attempt may succeed. */
  readonly retryable: boolean;

  constructor(error: StepError, retryable: boolean, cause?: unknown) {
    super(error.message, { cause });
    this.error = error;
    this.retryable = retryable;
  }
}

/** The models that are configured, by name. */
export interface ModelCatalog {
  find(name: string): Model | undefined;
  /** By name. */
  list(): readonly Model[];
}

/** A catalog of the models given. */
export function createModelCatalog(models: readonly Model[]): ModelCatalog {
  const byName = new Map(models.map((model) => [model.name, model]));
  const sorted = [...byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return { find: (name) => byName.get(name), list: () => sorted };
}
