/**
 * Any endpoint that speaks OpenAI's chat completions, as a stream. What differs
 * between servers and is coped with: deltas without a role, tool calls without
 * ids, usage in a chunk of its own or in the last one or nowhere, a
 * finish_reason that comes before the usage.
 *
 * A call that was refused before it streamed (429, 5xx, no connection) is made
 * again here, at most three times, and no sooner than Retry-After says. Once
 * text has come, a failure ends the attempt: it is shown as discarded, and the
 * turn decides on the next one.
 */
import OpenAI from "openai";
import { boundary } from "../../runtime/failpoint/failpoint.ts";
import { backOffMs } from "../../runtime/wait/back-off.ts";
import { argumentsText, estimateMessages, estimateTokens, type Message, outcomeText } from "../domain/conversation.ts";
import type { ToolCall } from "../domain/entry.ts";
import type { JsonObject } from "../domain/json.ts";
import { ModelCallError, type ModelEvent, type ModelRequest } from "./model.ts";
import type { OpenAiModelOptions, OpenAiTimeouts } from "./openai.ts";

type Chunk = OpenAI.Chat.Completions.ChatCompletionChunk;
type Parameters = OpenAI.Chat.Completions.ChatCompletionCreateParamsStreaming;

const defaultTimeouts: OpenAiTimeouts = { firstChunkMs: 60_000, idleMs: 60_000, totalMs: 600_000 };
const maxTries = 4;
const waits = { firstMs: 500, mostMs: 8_000 } as const;
/** A server that asks for more is taken to be down. */
const longestRetryAfterMs = 60_000;
const maxToolCalls = 128;
const maxArgumentsBytes = 256 * 1024;

/**
 * Asks the endpoint once.
 *
 * @throws ModelCallError MODEL_KEY_MISSING, or MODEL_FAILED
 */
export async function* streamOpenAi(
  options: OpenAiModelOptions,
  request: ModelRequest,
  signal: AbortSignal,
): AsyncIterable<ModelEvent> {
  const timeouts = { ...defaultTimeouts, ...options.timeouts };
  const apiKey = options.key();
  if (apiKey === undefined) {
    throw new ModelCallError({ reason: "MODEL_KEY_MISSING", message: "no key for the model is configured" }, false);
  }
  // Retries are ours, since the package's do not tell a cut stream from an end.
  const client = new OpenAI({
    apiKey,
    baseURL: options.baseUrl,
    maxRetries: 0,
    timeout: timeouts.totalMs,
    logLevel: "off",
  });
  const watch = new Watch(timeouts, signal);
  try {
    const chunks = await open(client, toParameters(options.name, request), watch, options.wait ?? pause);
    yield* read(chunks, request, watch);
  } finally {
    watch.end();
  }
}

/** Ends a call that is silent or takes too long. */
class Watch {
  readonly #ending = new AbortController();
  readonly #timeouts: OpenAiTimeouts;
  readonly #total: NodeJS.Timeout;
  readonly signal: AbortSignal;
  #silence: NodeJS.Timeout | undefined;
  #expired: string | undefined;

  constructor(timeouts: OpenAiTimeouts, outer: AbortSignal) {
    this.#timeouts = timeouts;
    this.signal = AbortSignal.any([outer, this.#ending.signal]);
    this.#total = setTimeout(() => this.#expire("the model took too long"), timeouts.totalMs);
  }

  /** Why it was ended; undefined if it was not. */
  get expired(): string | undefined {
    return this.#expired;
  }

  /** The request is being sent: the first chunk has to come in time. */
  sent(): void {
    this.#arm(this.#timeouts.firstChunkMs, "the model did not begin to answer in time");
  }

  /** A chunk came: the next one has to come in time. */
  heard(): void {
    this.#arm(this.#timeouts.idleMs, "the model fell silent");
  }

  /** Nothing is waited for now. */
  rest(): void {
    clearTimeout(this.#silence);
  }

  end(): void {
    clearTimeout(this.#silence);
    clearTimeout(this.#total);
    this.#ending.abort();
  }

  #arm(ms: number, why: string): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#expire(why), ms);
  }

  #expire(why: string): void {
    this.#expired ??= why;
    this.#ending.abort();
  }
}

async function open(
  client: OpenAI,
  parameters: Parameters,
  watch: Watch,
  wait: (ms: number, signal: AbortSignal) => Promise<void>,
): Promise<AsyncIterable<Chunk>> {
  for (let tries = 1; ; tries += 1) {
    watch.sent();
    try {
      return await boundary(
        "model.call",
        // Of the package's own kind of promise only what a promise promises.
        async () => await client.chat.completions.create(parameters, { signal: watch.signal }),
      );
    } catch (error) {
      const failure = toFailure(error, watch);
      if (!failure.retryable || tries >= maxTries || watch.signal.aborted) throw failure;
      const delayMs = Math.max(retryAfterMs(error) ?? 0, backOffMs(tries, waits));
      if (delayMs > longestRetryAfterMs) throw failure;
      watch.rest();
      await wait(delayMs, watch.signal);
    }
  }
}

async function* read(chunks: AsyncIterable<Chunk>, request: ModelRequest, watch: Watch): AsyncIterable<ModelEvent> {
  const calls = new Map<number, { id: string; name: string; arguments: string }>();
  let finished: string | undefined;
  let usage: { prompt_tokens?: number; completion_tokens?: number } | undefined;
  let textBytes = 0;
  try {
    for await (const chunk of chunks) {
      watch.heard();
      if (chunk.usage !== undefined && chunk.usage !== null) usage = chunk.usage;
      const choice = chunk.choices?.[0];
      if (choice === undefined) continue;
      const text = choice.delta?.content;
      if (typeof text === "string" && text !== "") {
        textBytes += Buffer.byteLength(text);
        yield { type: "text", text };
      }
      for (const part of choice.delta?.tool_calls ?? []) gather(calls, part);
      if (choice.finish_reason !== undefined && choice.finish_reason !== null) finished = choice.finish_reason;
    }
  } catch (error) {
    throw error instanceof ModelCallError ? error : toFailure(error, watch);
  }
  // The package ends an aborted stream as if it were whole.
  if (watch.expired !== undefined) throw failed(watch.expired, true);
  if (finished === undefined) throw failed("the model's stream was cut", true);
  if (finished === "content_filter") throw failed("the provider withheld the answer", false);
  if (finished === "length") throw failed("the answer was cut at the model's limit", false);
  for (const [index, call] of [...calls].sort(([a], [b]) => a - b)) yield toToolCall(call, index, request.stepId);
  yield {
    type: "end",
    // Servers that do not count: the estimate, so that limits still bind.
    inputTokens: usage?.prompt_tokens ?? estimateTokens(request.instructions) + estimateMessages(request.messages),
    outputTokens: usage?.completion_tokens ?? Math.ceil(textBytes / 3),
  };
}

type CallPart = NonNullable<Chunk["choices"][number]["delta"]["tool_calls"]>[number];

/** Puts the parts of parallel calls together, by their index. */
function gather(calls: Map<number, { id: string; name: string; arguments: string }>, part: CallPart): void {
  const index = part.index ?? 0;
  const call = calls.get(index) ?? { id: "", name: "", arguments: "" };
  // The id and the name come whole, and some servers repeat them in each part.
  if (call.id === "" && typeof part.id === "string") call.id = part.id;
  if (call.name === "" && typeof part.function?.name === "string") call.name = part.function.name;
  call.arguments += part.function?.arguments ?? "";
  if (calls.size > maxToolCalls || call.arguments.length > maxArgumentsBytes) {
    throw failed("the model asks for more than can be called", false);
  }
  calls.set(index, call);
}

function toToolCall(call: { id: string; name: string; arguments: string }, index: number, stepId: string): ModelEvent {
  const callId = call.id === "" ? `call_${stepId.slice(-16)}_${index}` : call.id;
  const text = call.arguments.trim() === "" ? "{}" : call.arguments;
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    parsed = undefined;
  }
  const isObject = typeof parsed === "object" && parsed !== null && !Array.isArray(parsed);
  const toolCall: ToolCall = isObject
    ? { callId, tool: call.name, arguments: parsed as JsonObject, malformed: "" }
    : { callId, tool: call.name, arguments: {}, malformed: text };
  return { type: "tool-call", call: toolCall };
}

function toParameters(model: string, request: ModelRequest): Parameters {
  const messages: OpenAI.Chat.Completions.ChatCompletionMessageParam[] = [];
  if (request.instructions !== "") messages.push({ role: "system", content: request.instructions });
  for (const message of request.messages) messages.push(toMessage(message));
  return {
    model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
    ...(request.tools.length === 0
      ? {}
      : {
          tools: request.tools.map((tool) => ({
            type: "function" as const,
            function: { name: tool.name, description: tool.description, parameters: { ...tool.inputSchema } },
          })),
        }),
    ...(request.answerSchema === undefined
      ? {}
      : {
          response_format: {
            type: "json_schema" as const,
            json_schema: { name: "answer", schema: { ...request.answerSchema } },
          },
        }),
  };
}

function toMessage(message: Message): OpenAI.Chat.Completions.ChatCompletionMessageParam {
  switch (message.role) {
    case "user":
      return { role: "user", content: message.text };
    case "tool":
      return { role: "tool", tool_call_id: message.callId, content: outcomeText(message.outcome) };
    case "assistant":
      return {
        role: "assistant",
        content: message.text === "" && message.toolCalls.length > 0 ? null : message.text,
        ...(message.toolCalls.length === 0
          ? {}
          : {
              tool_calls: message.toolCalls.map((call) => ({
                id: call.callId,
                type: "function" as const,
                function: { name: call.tool, arguments: argumentsText(call) },
              })),
            }),
      };
  }
}

/** Never repeats what the provider said: it may quote the key or the prompt. */
function toFailure(error: unknown, watch: Watch): ModelCallError {
  if (watch.expired !== undefined) return failed(watch.expired, true, error);
  if (error instanceof OpenAI.APIConnectionError) return failed("the provider cannot be reached", true, error);
  if (error instanceof OpenAI.APIError && typeof error.status === "number") {
    const { status } = error;
    if (status === 401 || status === 403) return failed("the provider refuses the key", false, error);
    if (status === 429) return failed("the provider has too many requests", true, error);
    if (status === 408 || status === 409 || status >= 500)
      return failed(`the provider failed with ${status}`, true, error);
    return failed(`the provider refused the request with ${status}`, false, error);
  }
  // The connection broke within the stream, or the stream held what is no chunk.
  return failed("the model's stream was cut", true, error);
}

function failed(message: string, retryable: boolean, cause?: unknown): ModelCallError {
  return new ModelCallError({ reason: "MODEL_FAILED", message }, retryable, cause);
}

function retryAfterMs(error: unknown): number | undefined {
  if (!(error instanceof OpenAI.APIError)) return undefined;
  const value = error.headers?.get("retry-after");
  if (value === undefined || value === null) return undefined;
  const seconds = Number(value);
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1_000);
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - Date.now());
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}
