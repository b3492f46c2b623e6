import type { Interceptor } from "@connectrpc/connect";
import { AppError } from "../errors/app-error.ts";
import { observeStream } from "../rpc/message-stream.ts";
import { requestContext } from "../rpc/request-context.ts";

/** What a process takes on at once. */
export interface LimitsOptions {
  /** Calls that are being answered, streams included. Default 10,000. */
  readonly maxRunning: number;
}

const idempotencyKeyPattern = /^[\x21-\x7e]{1,255}$/;

/**
 * Bounds what a call may bring besides its message, whose size the host
 * bounds, and how many calls a process answers at once. Hands on the caller's
 * idempotency key.
 */
export function limits(options: LimitsOptions = { maxRunning: 10_000 }): Interceptor {
  let running = 0;
  return (next) => async (request) => {
    if (running >= options.maxRunning) {
      throw new AppError("OVERLOADED", "too many calls are being answered", { retryAfterMs: 1_000 });
    }
    const key = request.header.get("idempotency-key");
    if (key !== null) {
      if (!idempotencyKeyPattern.test(key)) {
        throw new AppError("INVALID_METADATA", "idempotency-key: must be 1 to 255 visible ASCII characters");
      }
      requestContext(request.contextValues).idempotencyKey = key;
    }
    running += 1;
    try {
      const response = await next(request);
      if (!response.stream) {
        running -= 1;
        return response;
      }
      const ended = (): void => {
        running -= 1;
      };
      return { ...response, message: observeStream(response.message, { ended }) };
    } catch (thrown) {
      running -= 1;
      throw thrown;
    }
  };
}
