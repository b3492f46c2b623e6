import { AppError } from "../../runtime/errors/app-error.ts";
import type { Payload, StepError, StepPlace } from "./entry.ts";
import type { Json } from "./json.ts";

/** The entry of a step that has its output; `attempt` is 0 if none was needed. */
export function succeeded(place: StepPlace, stepId: string, attempt: number, output: Payload | undefined) {
  return {
    type: "graph.step.succeeded",
    stepId,
    place,
    attempt,
    output,
    inputTokens: 0,
    outputTokens: 0,
    signalSeq: 0,
    carried: false,
  } as const;
}

/** The entry of a step that failed for good. */
export function failed(place: StepPlace, stepId: string, attempt: number, error: StepError) {
  return {
    type: "graph.step.failed",
    stepId,
    place,
    attempt,
    error,
    retryAtMs: undefined,
    receipt: undefined,
  } as const;
}

/** A value that an entry holds itself. */
export function inline(value: Json): Payload {
  return { value, blob: undefined };
}

/** Why a step failed, if that is known: what is no AppError is a bug, and thrown on. */
export function toStepError(error: unknown): StepError {
  if (!(error instanceof AppError)) throw error;
  return { reason: error.reason, message: error.message };
}
