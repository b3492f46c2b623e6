import { setTimeout as delay } from "node:timers/promises";
import { UndecodableError } from "./decode.ts";
import type { Handler } from "./handler.ts";

/** No attempt is left. */
export class AttemptsFailedError extends Error {
  override readonly name = "AttemptsFailedError";
  readonly attempts: number;

  /** @param cause what the last attempt threw */
  constructor(attempts: number, cause: unknown) {
    super(`attempt ${attempts} failed, which was the last`, { cause });
    this.attempts = attempts;
  }
}

export interface RetryOptions {
  /** From 0 up to, not including, 1. Default: `Math.random`. */
  readonly random?: () => number;
}

const maxAttempts = 3;
/** Before the second attempt at most 200 ms, before the third 400: with attempts of a second, all end within 4 s. */
const baseBackOffMs = 200;

/**
 * Tries an event up to three times, with exponential backoff and full jitter
 * (aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter): the
 * pause is drawn between nothing and 200 ms, then 400 ms. An event that cannot
 * be decoded gets one attempt.
 *
 * @throws AttemptsFailedError when no attempt is left
 * @throws whatever the attempt threw, if the partition was lost meanwhile
 */
export function retry<Input>(next: Handler<Input>, { random = Math.random }: RetryOptions = {}): Handler<Input> {
  return async (input, signal) => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await next(input, signal);
      } catch (thrown) {
        if (signal.aborted) throw thrown;
        if (attempt === maxAttempts || thrown instanceof UndecodableError)
          throw new AttemptsFailedError(attempt, thrown);
      }
      await delay(random() * baseBackOffMs * 2 ** (attempt - 1), undefined, { signal });
    }
  };
}
