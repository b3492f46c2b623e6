import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "../../runtime/errors/app-error.ts";
import { type BackOff, backOffMs } from "../../runtime/wait/back-off.ts";

/** The first wait is short, because most interruptions are restarts; the longest keeps a dead peer from being asked all the time. */
export const waits: BackOff = { firstMs: 100, mostMs: 5_000 };

/** Waits; ends with the signal's reason when it aborts. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal });
}

/** Whether the same may succeed later, since only somebody who is needed for it was absent. */
export function isPassing(error: unknown): boolean {
  return (
    error instanceof AppError &&
    (error.reason === "UNAVAILABLE" ||
      error.reason === "SHUTTING_DOWN" ||
      error.reason === "OVERLOADED" ||
      error.reason === "BACKPRESSURE" ||
      error.reason === "AUTHZ_UNAVAILABLE" ||
      error.reason === "POLICY_UNAVAILABLE" ||
      error.reason === "DEADLINE_EXCEEDED")
  );
}

/** Does something until nobody who is needed for it is absent, or the signal aborts. */
export async function untilAvailable<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let attempts = 1; ; attempts += 1) {
    signal.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (signal.aborted || !isPassing(error)) throw error;
      await pause(backOffMs(attempts, waits), signal);
    }
  }
}
