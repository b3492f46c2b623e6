import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { AuditDecision, AuditEventSchema } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import type { AuditSink } from "../../runtime/audit/audit-sink.ts";
import { newId } from "../../runtime/ids/id.ts";
import type { Logger } from "../../runtime/log/log.ts";

/** Says in the log, and in the audit log of no org, that this process refuses new work, and that it takes it again. */
export function backpressureRecorder(audit: AuditSink, log: Logger): (isOn: boolean) => void {
  return (isOn) => {
    if (isOn) log.warn("too many facts wait for the bus: new work is refused until they are relayed");
    else log.info("facts are relayed again: new work is taken");
    const event = create(AuditEventSchema, {
      eventId: newId("evt"),
      at: timestampFromMs(Date.now()),
      type: isOn ? "backpressure.on" : "backpressure.off",
      actor: "orchestrator",
      decision: isOn ? AuditDecision.DENIED : AuditDecision.ALLOWED,
      reason: isOn ? "BACKPRESSURE" : "",
      count: 1,
    });
    audit.append(event).catch((error: unknown) => {
      log.error({ err: error, type: event.type }, "it could not be written to the audit log");
    });
  };
}
