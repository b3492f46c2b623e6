import type { Model } from "./model.ts";
import type { KeySource } from "./openai-key.ts";

/** How long is waited for what, in milliseconds. */
export interface OpenAiTimeouts {
  /** From the request to the first chunk, connecting and queueing included. */
  readonly firstChunkMs: number;
  /** Between two chunks. */
  readonly idleMs: number;
  /** The whole call. */
  readonly totalMs: number;
}

export interface OpenAiModelOptions {
  /** The model's name at its endpoint. */
  readonly name: string;
  readonly baseUrl: string;
  readonly key: KeySource;
  readonly contextTokens: number;
  readonly timeouts?: Partial<OpenAiTimeouts>;
  /** For tests: how to wait. Default: really. */
  readonly wait?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** Makes the model `openai/<name>`. */
export function createOpenAiModel(options: OpenAiModelOptions): Model {
  return {
    name: `openai/${options.name}`,
    provider: "openai",
    contextTokens: options.contextTokens,
    get available() {
      return options.key() !== undefined;
    },
    async *stream(request, signal) {
      // OpenAI's package is a tenth of what a start loads, and many never call it.
      const { streamOpenAi } = await import("./openai-stream.ts");
      yield* streamOpenAi(options, request, signal);
    },
  };
}
