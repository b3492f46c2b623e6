import { type AuditEvent, AuditService, type ListAuditEventsRequest } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { toUuid } from "../../runtime/ids/id.ts";
import type { RequestContext } from "../../runtime/rpc/request-context.ts";
import { noOrg } from "../domain/audit-chain.ts";
import { allowedContent, toEvent } from "./audit-event.ts";
import type { CredentialsDeps } from "./credentials-deps.ts";

const defaultPageSize = 50;
const method = `${AuditService.typeName}/${AuditService.method.listAuditEvents.name}`;

/**
 * A page of the org's audit log, newest first. An operator also sees what
 * belongs to no org, such as credentials that nobody knows. Reading is written
 * to the log first.
 *
 * @throws AppError INVALID_PAGE_TOKEN
 */
export async function listAuditEvents(
  deps: CredentialsDeps,
  principal: Principal,
  request: ListAuditEventsRequest,
  scope: RequestContext,
): Promise<{ events: AuditEvent[]; nextPageToken: string }> {
  const orgId = toUuid("org", principal.orgId);
  const list = { orgId: principal.orgId, method, filter: request.type };
  const from = deps.pageTokens.open(list, request.pageToken);
  const size = request.pageSize === 0 ? defaultPageSize : request.pageSize;
  await deps.database.asOrg(orgId, (transaction) =>
    deps.auditLog.append(transaction, [
      allowedContent({ type: "audit.read", action: method, resource: "audit" }, principal, scope),
    ]),
  );
  const orgs = principal.operator ? [orgId, noOrg] : [orgId];
  // As the engine, because entries without an org are no org's rows; the orgs
  // are the principal's own and, for an operator, none.
  const rows = await deps.database.engine
    .selectFrom("audit_entry")
    .selectAll()
    .where("org_id", "in", orgs)
    .$if(request.type !== "", (query) => query.where("type", "=", request.type))
    .$if(from !== undefined, (query) => query.where("event_id", "<=", from ?? ""))
    .orderBy("event_id", "desc")
    .limit(size + 1)
    .execute();
  const next = rows[size];
  return {
    events: rows.slice(0, size).map(toEvent),
    nextPageToken: next === undefined ? "" : deps.pageTokens.seal(list, next.event_id),
  };
}
