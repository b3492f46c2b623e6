import type {
  DescMessage,
  DescMethodStreaming,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import type { Transport } from "@connectrpc/connect";
import { CadreError, toCadreError } from "./error.ts";
import { backoffMs, delay, isPassing, type RetryPolicy } from "./retry.ts";

/** What can be said about any call. */
export interface CallOptions {
  /** Ends the call: it rejects with `CANCELLED`. */
  readonly signal?: AbortSignal | undefined;
  /**
   * How long the call may take with all its retries, in milliseconds; what
   * `createCadre` was told unless said. 0 is for ever.
   */
  readonly timeoutMs?: number | undefined;
}

/** What can be said about a call that makes something. */
export interface EffectCallOptions extends CallOptions {
  /**
   * Makes a repetition harmless: the server answers a second call with the
   * same key like the first, and does nothing. Made afresh for each call unless
   * said; give your own to repeat a call over a restart of your process.
   */
  readonly idempotencyKey?: string | undefined;
}

/** What a caller is built from. */
export interface CallerOptions {
  readonly transport: Transport;
  readonly apiKey: string | (() => string | Promise<string>) | undefined;
  readonly timeoutMs: number;
  readonly retry: RetryPolicy;
}

/**
 * Makes calls over a transport:
 *
 * 1. Every failure is a `CadreError`.
 * 2. A unary call ends by its timeout, whatever the server does; retries and
 *    the waits between them are within it.
 * 3. A call is sent again only after a passing failure, and only if that can do
 *    no harm: the contract says that the method is idempotent, or the call has
 *    an idempotency key, which stays the same.
 */
export interface Caller {
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options?: EffectCallOptions,
  ): Promise<MessageShape<O>>;

  /**
   * Opens a server stream, once. It has no timeout; the signal ends it. The
   * iterator has no `return`: who leaves early must abort the signal.
   */
  stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O>,
    request: MessageInitShape<I>,
    signal: AbortSignal,
  ): Promise<AsyncIterable<MessageShape<O>>>;
}

/** Creates a caller. */
export function createCaller({ transport, apiKey, timeoutMs: defaultTimeoutMs, retry }: CallerOptions): Caller {
  async function headers(idempotencyKey?: string): Promise<Headers> {
    const result = new Headers();
    const key = typeof apiKey === "function" ? await apiKey() : apiKey;
    if (key !== undefined && key !== "") result.set("authorization", `Bearer ${key}`);
    if (idempotencyKey !== undefined) result.set("idempotency-key", idempotencyKey);
    return result;
  }

  return {
    async unary(method, request, options = {}) {
      const { signal } = options;
      const timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
      const deadline = timeoutMs === 0 ? Number.POSITIVE_INFINITY : Date.now() + timeoutMs;
      const idempotencyKey = needsKey(method) ? (options.idempotencyKey ?? newIdempotencyKey()) : undefined;
      for (let attempt = 1; ; attempt += 1) {
        const header = await headers(idempotencyKey);
        try {
          if (signal?.aborted === true) throw toCadreError(undefined, signal);
          const leftMs = deadline === Number.POSITIVE_INFINITY ? undefined : Math.max(1, deadline - Date.now());
          const response = await transport.unary(method, signal, leftMs, header, request);
          return response.message;
        } catch (thrown) {
          const error = toCadreError(thrown, signal);
          if (!isPassing(error) || attempt >= retry.maxAttempts) throw error;
          const waitMs = backoffMs(attempt, retry, error.retryAfterMs);
          // Waiting past the deadline could only replace the true reason by a
          // vaguer one.
          if (Date.now() + waitMs >= deadline) throw error;
          await delay(waitMs, signal);
        }
      }
    },

    async stream(method, request, signal) {
      const header = await headers();
      try {
        const input = (async function* () {
          yield request;
        })();
        const response = await transport.stream(method, signal, undefined, header, input);
        return mapErrors(response.message, signal);
      } catch (thrown) {
        throw toCadreError(thrown, signal);
      }
    },
  };
}

function needsKey(method: { readonly idempotency: IdempotencyLevel }): boolean {
  return method.idempotency === IdempotencyLevel.IDEMPOTENCY_UNKNOWN;
}

async function* mapErrors<T>(messages: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T, void, undefined> {
  try {
    for await (const message of messages) yield message;
  } catch (thrown) {
    throw toCadreError(thrown, signal);
  }
}

/** 128 random bits. `crypto.randomUUID` is missing in pages that came over plain HTTP. */
export function newIdempotencyKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Reads a field that every answer of the server carries. Throws `INTERNAL` if it does not. */
export function required<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw new CadreError("INTERNAL", `the server's answer lacks ${name}`);
  return value;
}
