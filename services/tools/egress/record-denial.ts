import type { DenialLog } from "../../runtime/audit/denial-log.ts";
import type { EgressDenial } from "./egress-guard.ts";

/**
 * Writes refused requests to the audit log of an org: what kind of host it was,
 * and its name where that is public; never a path or a query.
 *
 * @param orgId as in ids
 */
export function recordDenial(
  denials: DenialLog,
  call: { readonly orgId: string; readonly requestId: string },
): (denial: EgressDenial) => Promise<void> {
  return ({ class: kind, host }) =>
    denials.record({
      type: "egress.denied",
      reason: kind.toUpperCase(),
      orgId: call.orgId,
      actor: "",
      action: "http_fetch",
      resource: kind === "not_allowed" || kind === "redirect" ? `host/${host}`.slice(0, 256) : "host",
      source: "",
      requestId: call.requestId,
      traceId: "",
    });
}
