import type { HandlerContext } from "@connectrpc/connect";
import type { AuditSink } from "../../runtime/audit/audit-sink.ts";
import { toUuid } from "../../runtime/ids/id.ts";
import { requestContext, requirePrincipal } from "../../runtime/rpc/request-context.ts";
import type { Force, Registrant } from "../app/add-version.ts";
import { forcedEvent } from "./audit-event.ts";

/** The UUID of the caller's org. */
export function orgOf(context: HandlerContext): string {
  return toUuid("org", requirePrincipal(context).orgId);
}

/** The caller as one who registers. */
export function registrantOf(context: HandlerContext): Registrant {
  return { orgId: orgOf(context), subject: requirePrincipal(context).subject };
}

/** The caller's leave to break, which leaves its reason in the audit log. */
export function forceFor(context: HandlerContext, audit: AuditSink, reason: string): Force {
  const request = requestContext(context.values);
  return { reason, onForced: (subject) => audit.append(forcedEvent(request, context.method, subject, reason)) };
}
