import { create } from "@bufbuild/protobuf";
import { timestampFromDate, timestampMs } from "@bufbuild/protobuf/wkt";
import { AuditDecision, type AuditEvent, AuditEventSchema } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { fromUuid, newId, toUuid } from "../../runtime/ids/id.ts";
import type { RequestContext } from "../../runtime/rpc/request-context.ts";
import { traceIdOf } from "../../runtime/telemetry/traceparent.ts";
import { type AuditContent, type ChainedEntry, noOrg } from "../domain/audit-chain.ts";

/** What a method of this service leaves in the audit log, in the transaction that does it. */
export interface OwnEvent {
  /** As the method's contract declares it, for example `key.issued`. */
  readonly type: string;
  /** The method's full name. */
  readonly action: string;
  /** The object, for example `key/key_…`. */
  readonly resource: string;
}

/** The entry of something that a principal was allowed and that is done with its transaction. */
export function allowedContent(
  event: OwnEvent,
  principal: Principal,
  scope: RequestContext,
  now: Date = new Date(),
): AuditContent {
  return {
    ...event,
    org_id: toUuid("org", principal.orgId),
    event_id: toUuid("evt", newId("evt")),
    at: now,
    actor: clean(principal.subject, 512),
    decision: AuditDecision.ALLOWED,
    reason: "",
    request_id: scope.requestId,
    trace_id: traceIdOf(scope.traceparent),
    source: clean(scope.source, 64),
    count: 1,
  };
}

/** An event as it came from another service, as an entry. */
export function toContent(event: AuditEvent): AuditContent {
  return {
    org_id: event.orgId === "" ? noOrg : toUuid("org", event.orgId),
    event_id: toUuid("evt", event.eventId),
    at: event.at === undefined ? new Date() : new Date(timestampMs(event.at)),
    type: clean(event.type, 64),
    actor: clean(event.actor, 512),
    action: clean(event.action, 256),
    resource: clean(event.resource, 256),
    decision: event.decision,
    reason: clean(event.reason, 256),
    request_id: clean(event.requestId, 64),
    trace_id: clean(event.traceId, 32),
    source: clean(event.source, 64),
    count: Math.min(Math.max(event.count, 1), 2 ** 31 - 1),
  };
}

/** An entry for its readers. */
export function toEvent(entry: ChainedEntry): AuditEvent {
  return create(AuditEventSchema, {
    eventId: fromUuid("evt", entry.event_id),
    at: timestampFromDate(entry.at),
    type: entry.type,
    orgId: entry.org_id === noOrg ? "" : fromUuid("org", entry.org_id),
    actor: entry.actor,
    action: entry.action,
    resource: entry.resource,
    decision: entry.decision,
    reason: entry.reason,
    requestId: entry.request_id,
    traceId: entry.trace_id,
    source: entry.source,
    count: entry.count,
    previousHash: entry.previous_hash.toString("hex"),
    hash: entry.hash.toString("hex"),
  });
}

/**
 * Texts of callers, so that one entry is one line and every database takes it:
 * control characters and broken surrogates become U+FFFD.
 */
function clean(text: string, maxCharacters: number): string {
  return text
    .slice(0, maxCharacters)
    .toWellFormed()
    .replace(/[\u0000-\u001f\u007f-\u009f]/g, "\ufffd");
}
