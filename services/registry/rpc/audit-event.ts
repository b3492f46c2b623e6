import { create, type DescMethod } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { AuditDecision, type AuditEvent, AuditEventSchema } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { newId } from "../../runtime/ids/id.ts";
import type { RequestContext } from "../../runtime/rpc/request-context.ts";
import { traceIdOf } from "../../runtime/telemetry/traceparent.ts";

/** The audit event of a schema that is registered whatever it breaks: unlike others it says why. */
export function forcedEvent(request: RequestContext, method: DescMethod, subject: string, reason: string): AuditEvent {
  return create(AuditEventSchema, {
    eventId: newId("evt"),
    at: timestampFromMs(Date.now()),
    type: "schema.forced",
    orgId: request.principal?.orgId ?? "",
    actor: request.principal?.subject ?? "",
    action: `${method.parent.typeName}/${method.name}`,
    resource: `subject/${subject}`.slice(0, 256),
    decision: AuditDecision.ALLOWED,
    reason,
    requestId: request.requestId,
    traceId: traceIdOf(request.traceparent),
    source: request.source.slice(0, 64),
    count: 1,
  });
}
