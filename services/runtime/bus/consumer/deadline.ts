import { AppError } from "../../errors/app-error.ts";
import type { Handler } from "./handler.ts";

/**
 * Ends an attempt when its time is over, whether or not the handler heeds: the
 * signal aborts, and the attempt fails. What it goes on doing is in vain (see
 * `dedup.ts`).
 *
 * @param timeoutMs of one attempt
 * @param hasBegun whether the handler has ever begun with an input
 * @throws AppError DEADLINE_EXCEEDED
 * @throws AppError UNAVAILABLE if the handler has not begun: what it was waited for is not the input's fault
 */
export function deadline<Input>(
  timeoutMs: number,
  hasBegun: (input: Input) => boolean,
  next: Handler<Input>,
): Handler<Input> {
  return async (input, signal) => {
    const over = new AbortController();
    const { promise, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      const failure = hasBegun(input)
        ? new AppError("DEADLINE_EXCEEDED", `the handler did not end within ${timeoutMs} ms`)
        : new AppError("UNAVAILABLE", `the handler could not begin within ${timeoutMs} ms`);
      over.abort(failure);
      reject(failure);
    }, timeoutMs);
    const lost = () => reject(signal.reason);
    signal.addEventListener("abort", lost, { once: true });
    try {
      signal.throwIfAborted();
      return await Promise.race([next(input, AbortSignal.any([signal, over.signal])), promise]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", lost);
    }
  };
}
