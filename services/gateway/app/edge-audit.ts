import type { Denial, DenialLog } from "../../runtime/audit/denial-log.ts";
import { limitDenial } from "../../runtime/audit/limit-denial.ts";
import { sourceOf } from "../../runtime/edge/connection-gate.ts";
import type { OnRefused } from "../../runtime/edge/refused-call.ts";
import type { Abuse } from "../../runtime/edge/session-guard.ts";
import { requestContextKey } from "../../runtime/rpc/request-context.ts";
import { traceIdOf } from "../../runtime/telemetry/traceparent.ts";

/** Writes to the audit log what the edge refuses by itself, where no interceptor sees it. */
export interface EdgeAudit {
  /** Notes the abuse of a connection: one row a source, kind and minute. */
  readonly onAbuse: (source: string, abuse: Abuse) => void;
  /** Notes a call that a limit ended, or whose body came too slowly. */
  readonly onRefused: OnRefused;
}

/** Neither method waits: a flood must not cost more because it is written down. */
export function createEdgeAudit(denials: Pick<DenialLog, "record">): EdgeAudit {
  const note = (denial: Partial<Denial> & Pick<Denial, "type" | "reason">): void => {
    // Never rejects.
    void denials.record({ ...nobody, ...denial });
  };
  const onAbuse: EdgeAudit["onAbuse"] = (source, abuse) =>
    note({ type: "conn.abuse", reason: abuse, resource: "connection", source: sourceOf(source) });
  return {
    onAbuse,
    onRefused({ requestId, source, path, values }, failure) {
      // Outside of the interceptors only a body has a time of its own.
      if (failure.reason === "DEADLINE_EXCEEDED") return onAbuse(source, "slow_body");
      const limited = limitDenial(failure);
      if (limited === undefined) return;
      const scope = values?.get(requestContextKey);
      note({
        ...limited,
        reason: failure.reason,
        orgId: scope?.principal?.orgId ?? "",
        actor: scope?.principal?.subject ?? "",
        action: path.slice(1),
        source,
        requestId,
        traceId: traceIdOf(scope?.traceparent ?? ""),
      });
    },
  };
}

const nobody: Omit<Denial, "type" | "reason"> = {
  orgId: "",
  actor: "",
  action: "",
  resource: "",
  source: "",
  requestId: "",
  traceId: "",
};
