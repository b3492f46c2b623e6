import type { Interceptor } from "@connectrpc/connect";
import { byteLeaseKey } from "../edge/byte-budget.ts";
import { AppError } from "../errors/app-error.ts";
import type { Limits } from "../identity/limits.ts";
import type { Logger } from "../log/log.ts";
import { createTokenBuckets, type Rate } from "../quota/token-bucket.ts";
import { type RequestContext, requestContext } from "../rpc/request-context.ts";

export interface QuotaOptions {
  /** Where an org's `requests_per_second` and `request_burst` are read. */
  readonly limits: Limits;
  readonly log: Logger;
  /** For calls without a credential, by address, and while an org's limits cannot be read. Default 100/s, burst 200. */
  readonly fallback?: Rate;
  /** Monotonic milliseconds. */
  readonly now?: () => number;
}

/** The buckets of keys that were not used for longest are forgotten, so full again. */
const maxKeys = 50_000;
const defaultRate: Rate = { perSecond: 100, burst: 200 };

/**
 * Bounds how fast each credential calls: the org's limits by name, each key and
 * each user for itself; and how many bytes of requests each org holds. At the
 * edge only, else a forwarded call counts twice. Counts are those of this
 * process.
 *
 * @throws AppError RATE_LIMITED or OVERLOADED, with the time to wait
 */
export function quota(options: QuotaOptions): Interceptor {
  const fallback = options.fallback ?? defaultRate;
  const buckets = createTokenBuckets({ maxKeys, ...(options.now === undefined ? {} : { now: options.now }) });

  function rateOf(orgId: string): Rate | Promise<Rate> {
    const perSecond = options.limits.get(orgId, "requests_per_second");
    const burst = options.limits.get(orgId, "request_burst");
    if (typeof perSecond === "number" && typeof burst === "number") return { perSecond, burst };
    return Promise.all([perSecond, burst]).then(
      ([perSecond, burst]) => ({ perSecond, burst }),
      (thrown: unknown) => {
        options.log.warn({ err: thrown, org_id: orgId }, "limits could not be read; the default rate holds");
        return fallback;
      },
    );
  }

  return (next) => async (request) => {
    const scope = requestContext(request.contextValues);
    const key = keyOf(scope);
    if (key === "") return next(request);
    const found = scope.principal === undefined ? fallback : rateOf(scope.principal.orgId);
    const rate = found instanceof Promise ? await found : found;
    const waitMs = buckets.take(key, rate);
    if (waitMs > 0) throw tooFast(scope, rate, waitMs);
    if (scope.principal !== undefined) request.contextValues.get(byteLeaseKey)?.chargeTo(scope.principal.orgId);
    return next(request);
  };
}

function keyOf(scope: RequestContext): string {
  if (scope.principal !== undefined) return `${scope.principal.orgId} ${scope.principal.subject}`;
  return scope.source;
}

function tooFast(scope: RequestContext, rate: Rate, waitMs: number): AppError {
  return new AppError("RATE_LIMITED", `more than ${rate.perSecond} calls a second`, {
    retryAfterMs: waitMs,
    quotas: [
      {
        subject: scope.principal === undefined ? "source" : "credential",
        limit: "requests_per_second",
        value: BigInt(Math.floor(rate.perSecond)),
        description: `${rate.perSecond} calls a second, ${rate.burst} at once; an admin can raise requests_per_second and request_burst`,
      },
    ],
  });
}
