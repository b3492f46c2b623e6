import type { ContextValues } from "@connectrpc/connect";
import type { AppError } from "../errors/app-error.ts";
import type { Logger } from "../log/log.ts";
import type { EdgeRequest } from "./edge-request.ts";

/** A call that ended outside of the interceptors: before they saw it, or because its reader was too slow. */
export interface RefusedCall extends Pick<EdgeRequest, "requestId" | "source"> {
  /** The method, `/package.Service/Method`. */
  readonly path: string;
  /** The call's context, if it had come so far. */
  readonly values?: ContextValues;
}

/** Told of each refused call. Must not throw or wait. */
export type OnRefused = (call: RefusedCall, failure: AppError) => void;

/** Writes the one log line of a refused call; then tells `next`. What callers do to themselves is left out. */
export function logRefused(log: Logger, next?: OnRefused): OnRefused {
  return (call, failure) => {
    if (failure.reason === "CANCELLED") return;
    const { requestId, source, path } = call;
    log.info({ request_id: requestId, source, rpc: path, reason: failure.reason }, "request refused");
    next?.(call, failure);
  };
}
