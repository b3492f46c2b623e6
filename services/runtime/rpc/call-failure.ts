import { Code, ConnectError } from "@connectrpc/connect";
import { AppError } from "../errors/app-error.ts";
import { toAppError, toConnectError } from "../errors/failure.ts";

/** The failure of a call whose deadline passed. */
export function deadlineExceeded(): ConnectError {
  return toConnectError(new AppError("DEADLINE_EXCEEDED", "the deadline passed before the call was done"), "");
}

/**
 * What a call fails with whose signal aborted. A reason that is a failure
 * itself is kept, so that whoever ends a call can say why.
 */
export function abortFailure(reason: unknown): ConnectError {
  if (reason instanceof ConnectError) return reason;
  if (reason instanceof AppError) return toConnectError(reason, "");
  if (reason instanceof Error && reason.name === "TimeoutError") return deadlineExceeded();
  return new ConnectError("the call was cancelled", Code.Canceled, undefined, undefined, reason);
}

/**
 * Turns whatever was thrown into the form that callers get. What is no failure
 * of the contract becomes INTERNAL, without detail.
 */
export function toCallFailure(thrown: unknown, requestId: string): ConnectError {
  return thrown instanceof ConnectError ? thrown : toConnectError(toAppError(thrown), requestId);
}
