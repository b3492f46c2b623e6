import { AuditDecision } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import type { DenialLog } from "../../runtime/audit/denial-log.ts";
import { type DeadLetterEvent, fromDeadLetterEvent } from "../../runtime/bus/dead-letter-event.ts";
import { envelopeHeader } from "../../runtime/bus/envelope.ts";
import type { ReceivedEvent } from "../../runtime/bus/event-bus.ts";
import { isId, toUuid } from "../../runtime/ids/id.ts";
import { traceIdOf } from "../../runtime/telemetry/traceparent.ts";
import { type DeadLetterStore, noOrg } from "../store/dead-letter-store.ts";

export interface KeepDeadLetterDeps {
  readonly letters: DeadLetterStore;
  readonly denials: DenialLog;
}

/** Stores an event of a dead-letter topic; the same one again changes nothing. */
export async function keepDeadLetter(deps: KeepDeadLetterDeps, received: ReceivedEvent): Promise<void> {
  const letter = fromDeadLetterEvent(received);
  const orgId = orgOf(letter);
  const isNew = await deps.letters.keep(orgId === "" ? noOrg : toUuid("org", orgId), letter);
  if (!isNew) return;
  const { event, failure } = letter;
  const requestId = event.headers[envelopeHeader.requestId] ?? "";
  await deps.denials.record({
    type: "event.deadlettered",
    decision: AuditDecision.ALLOWED,
    reason: failure.reason,
    orgId,
    actor: failure.group.slice(0, 512),
    action: event.topic.slice(0, 256),
    resource: "dead_letter",
    source: "events",
    requestId: isId("req", requestId) ? requestId : "",
    traceId: traceIdOf(event.headers[envelopeHeader.traceparent] ?? ""),
  });
}

/**
 * Whose event it is: the org that key and envelope agree upon; empty if they do
 * not, or if the fact within named another one. Then nobody but an operator may
 * see it.
 */
function orgOf({ event, failure }: DeadLetterEvent): string {
  const orgId = event.headers[envelopeHeader.orgId] ?? "";
  const agrees = isId("org", orgId) && event.key.startsWith(`${orgId}:`);
  return agrees && failure.reason !== "TENANT_MISMATCH" ? orgId : "";
}
