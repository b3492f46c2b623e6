import { AppError } from "../../runtime/errors/app-error.ts";

/** Waits for work, but no longer than the signal lets: the work itself goes on. */
export async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => {
      const { reason } = signal;
      reject(reason instanceof AppError ? reason : new AppError("CANCELLED", "the caller gave up", { cause: reason }));
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
