import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { fromConnectError } from "../errors/failure.ts";
import { deadlineOf } from "../rpc/wire-transport.ts";

/** How often and how fast a call is tried again. */
export interface RetryOptions {
  /** Attempts in all. Default 3. */
  readonly attempts: number;
  /** The longest wait before the second attempt; it doubles with each. The wait is random up to it. Default 50 ms. */
  readonly initialMs: number;
}

export const defaultRetry: RetryOptions = { attempts: 3, initialMs: 50 };

/**
 * Tries unary calls again that failed without an answer from the peer's
 * service, where the contract declares the method idempotent. Waits a random
 * time in between, and never past the call's deadline.
 *
 * An UNAVAILABLE that the peer's service itself decided on is not tried again:
 * if every hop did that, trouble at the last one would multiply by each.
 */
export function retry(options: RetryOptions = defaultRetry): Interceptor {
  return (next) => async (request) => {
    const { idempotency } = request.method;
    if (request.stream || idempotency === MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN) return next(request);
    for (let attempt = 1; ; attempt++) {
      try {
        return await next(request);
      } catch (thrown) {
        const waitMs = Math.random() * options.initialMs * 2 ** (attempt - 1);
        const late = Date.now() + waitMs >= deadlineOf(request);
        if (attempt >= options.attempts || late || !isUnanswered(thrown)) throw thrown;
        await pause(waitMs, request.signal);
        if (request.signal.aborted) throw thrown;
      }
    }
  };
}

/** Whether the peer was not reached, or is going away. */
function isUnanswered(thrown: unknown): boolean {
  if (!(thrown instanceof ConnectError) || thrown.code !== Code.Unavailable) return false;
  const failure = fromConnectError(thrown);
  return failure === undefined || failure.reason === "SHUTTING_DOWN";
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
  });
}
