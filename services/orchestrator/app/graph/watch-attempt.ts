import { AppError } from "../../../runtime/errors/app-error.ts";

/** An attempt that takes longer is said to have started, in milliseconds. */
const slowMs = 20;

/** An attempt that is timed. */
export interface AttemptWatch {
  /** Whether it took too long, and was cut off for that. */
  readonly timedOut: boolean;
  /** It is over. */
  end(): void;
}

/**
 * Times an attempt with one timer: tells when it takes longer than a moment, and
 * aborts it when it takes too long.
 */
export function watchAttempt(controller: AbortController, timeoutMs: number, onSlow: () => void): AttemptWatch {
  let timedOut = false;
  const cutOff = (): void => {
    timedOut = true;
    controller.abort(new AppError("STEP_TIMEOUT", `the attempt took longer than ${timeoutMs} ms`));
  };
  let timer = setTimeout(
    () => {
      if (controller.signal.aborted) return;
      timer = setTimeout(cutOff, timeoutMs - slowMs);
      onSlow();
    },
    Math.min(slowMs, timeoutMs),
  );
  return {
    get timedOut() {
      return timedOut;
    },
    end: () => clearTimeout(timer),
  };
}
