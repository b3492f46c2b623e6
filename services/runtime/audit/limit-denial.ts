import { Code } from "@connectrpc/connect";
import type { AppError } from "../errors/app-error.ts";
import { failureOf } from "../errors/failure.ts";

/** The audit event of a failure by a limit. */
export interface LimitDenial {
  readonly type: "limit.exceeded" | "quota.exceeded" | "auth.throttled";
  /** `limit/<name>`, or `limit` where the limit has no name. */
  readonly resource: string;
}

/** What a failure that a limit caused leaves in the audit log; `undefined` for any other. */
export function limitDenial(failure: AppError): LimitDenial | undefined {
  if (failureOf(failure.reason).code !== Code.ResourceExhausted) return undefined;
  const limit = failure.quotas[0]?.limit;
  const resource = limit === undefined ? "limit" : `limit/${limit}`;
  if (failure.reason !== "RATE_LIMITED") return { type: "limit.exceeded", resource };
  return { type: limit === "failed_authentications_per_minute" ? "auth.throttled" : "quota.exceeded", resource };
}
