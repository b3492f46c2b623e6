import { Code } from "@connectrpc/connect";
import { CadreError } from "./error.ts";

/** How a call that failed in passing is tried again. */
export interface RetryOptions {
  /** How often a call is sent at most, the first time included; 4 unless said, 1 for never again. */
  readonly maxAttempts?: number;
  /** The longest wait before the second attempt, in milliseconds; 100 unless said. Doubles with each attempt. */
  readonly initialDelayMs?: number;
  /** What the longest wait grows to, in milliseconds; 5,000 unless said. */
  readonly maxDelayMs?: number;
}

/** `RetryOptions` with nothing left open. */
export type RetryPolicy = Required<RetryOptions>;

// Four attempts ride out a restart behind a load balancer, and end within a
// second where a server is really gone.
const defaults: RetryPolicy = { maxAttempts: 4, initialDelayMs: 100, maxDelayMs: 5_000 };

/** Fills in the defaults. Throws TypeError on a number that makes no sense. */
export function toRetryPolicy(options: RetryOptions = {}): RetryPolicy {
  const policy = { ...defaults, ...options };
  if (!Number.isInteger(policy.maxAttempts) || policy.maxAttempts < 1) {
    throw new TypeError("retry.maxAttempts must be a whole number from 1");
  }
  if (!(policy.initialDelayMs >= 0) || !(policy.maxDelayMs >= policy.initialDelayMs)) {
    throw new TypeError("retry.initialDelayMs must be 0 to retry.maxDelayMs");
  }
  return policy;
}

/**
 * How long to wait before attempt `attempt + 1`, in milliseconds: at random
 * between nothing and a bound that doubles ("full jitter", Brooker 2015), so
 * that clients cut off together do not come back together. Never less than
 * what the server asked for.
 *
 * @param attempt how many attempts there were, from 1
 * @param random 0 to 1
 */
export function backoffMs(
  attempt: number,
  policy: Pick<RetryPolicy, "initialDelayMs" | "maxDelayMs">,
  retryAfterMs: number | undefined,
  random: () => number = Math.random,
): number {
  // 2 ** 30 already exceeds every delay that is allowed; more would overflow.
  const bound = Math.min(policy.maxDelayMs, policy.initialDelayMs * 2 ** Math.min(attempt - 1, 30));
  return Math.max(random() * bound, retryAfterMs ?? 0);
}

/**
 * Whether a failure is passing, so that the SDK itself tries again. A failed
 * precondition, such as `SESSION_BUSY`, is not: only the caller knows what to
 * do about it, though the same call may succeed later.
 */
export function isPassing(error: CadreError): boolean {
  return error.retryable && error.code !== Code.FailedPrecondition;
}

/**
 * Waits. Rejects with `CANCELLED` as soon as the signal aborts.
 *
 * @param delayMs milliseconds, at most 2^31 - 1
 */
export function delay(delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(new CadreError("CANCELLED", "the call was cancelled", { cause: signal?.reason }));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, delayMs);
    if (signal?.aborted === true) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
  });
}
