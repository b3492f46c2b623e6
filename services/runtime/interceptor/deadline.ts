import type { Interceptor, StreamResponse } from "@connectrpc/connect";
import { AppError } from "../errors/app-error.ts";
import { arrivedDeadlineKey } from "../rpc/invoke.ts";
import { requestContext } from "../rpc/request-context.ts";
import { timeoutMsOf } from "../rpc/timeout.ts";

/** How long a call may take. */
export interface DeadlineOptions {
  /** For a unary call that says nothing. Default 30 s. */
  readonly unaryMs: number;
  /** The longest that a unary call may ask for. Default 5 min. */
  readonly maxUnaryMs: number;
  /** For a stream that says nothing, and the longest that it may ask for. Default 15 min; clients resume. */
  readonly maxStreamMs: number;
}

/** What holds unless a service says otherwise. */
export const defaultDeadlines: DeadlineOptions = {
  unaryMs: 30_000,
  maxUnaryMs: 300_000,
  maxStreamMs: 900_000,
};

/**
 * Enforces the deadline: at it the caller is answered DEADLINE_EXCEEDED,
 * whether or not the handler heeds its signal, which aborts at the same time.
 *
 * @throws AppError INVALID_TIMEOUT for a timeout past the maximum
 */
export function deadline(options: DeadlineOptions = defaultDeadlines): Interceptor {
  return (next) => async (request) => {
    const scope = requestContext(request.contextValues);
    const longest = request.stream ? options.maxStreamMs : options.maxUnaryMs;
    const assertWithin = (timeoutMs: number): void => {
      if (timeoutMs > longest) throw new AppError("INVALID_TIMEOUT", `the timeout is longer than ${longest} ms`);
    };
    // The mesh carries a deadline and ends the call by it, on both of its
    // planes; its signal is the one that aborts then.
    const arrived = request.contextValues.get(arrivedDeadlineKey);
    if (arrived !== Number.POSITIVE_INFINITY) {
      assertWithin(arrived - Date.now());
      scope.deadline = arrived;
      return next(request);
    }
    const asked = timeoutMsOf(request.header);
    if (asked !== undefined) assertWithin(asked);
    const timeoutMs = asked ?? (request.stream ? options.maxStreamMs : options.unaryMs);
    scope.deadline = Date.now() + timeoutMs;
    const controller = new AbortController();
    const expiry = startExpiry(timeoutMs, (failure) => controller.abort(failure));
    const onAbort = (): void => controller.abort(request.signal.reason);
    if (request.signal.aborted) onAbort();
    else request.signal.addEventListener("abort", onAbort, { once: true });
    const cleanUp = (): void => {
      expiry.stop();
      request.signal.removeEventListener("abort", onAbort);
    };
    scope.signal = controller.signal;
    try {
      const response = await expiry.unlessExpired(next({ ...request, signal: controller.signal }));
      if (response.stream) return { ...response, message: bounded(response, expiry, cleanUp) };
      cleanUp();
      return response;
    } catch (thrown) {
      cleanUp();
      throw thrown;
    }
  };
}

/** The end of a call's time. */
interface Expiry {
  /**
   * A promise, or DEADLINE_EXCEEDED if that comes first. Holds the promise only
   * while it is pending: a race against one promise of the whole call would
   * keep every message of a stream in memory until its end.
   */
  unlessExpired<T>(promise: Promise<T>): Promise<T>;
  stop(): void;
}

function startExpiry(timeoutMs: number, onExpired: (failure: AppError) => void): Expiry {
  const waiting = new Set<(failure: AppError) => void>();
  let expired: AppError | undefined;
  const timer = setTimeout(() => {
    expired = new AppError("DEADLINE_EXCEEDED", "the deadline passed before the call was done");
    for (const reject of waiting) reject(expired);
    onExpired(expired);
  }, timeoutMs);
  return {
    unlessExpired: (promise) =>
      new Promise((resolve, reject) => {
        if (expired !== undefined) reject(expired);
        waiting.add(reject);
        promise.then(
          (value) => {
            waiting.delete(reject);
            resolve(value);
          },
          (thrown: unknown) => {
            waiting.delete(reject);
            reject(thrown);
          },
        );
      }),
    stop: () => clearTimeout(timer),
  };
}

async function* bounded(response: StreamResponse, expiry: Expiry, cleanUp: () => void) {
  const source = response.message[Symbol.asyncIterator]();
  let pending = false;
  try {
    for (;;) {
      pending = true;
      const result = await expiry.unlessExpired(source.next());
      pending = false;
      if (result.done === true) return;
      yield result.value;
    }
  } finally {
    cleanUp();
    // A source that is still producing hears of the end by its signal; asking
    // it to return would wait for it.
    const returned = source.return?.();
    if (!pending) await returned;
    else returned?.catch(() => {});
  }
}
