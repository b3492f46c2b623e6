import type { AuditEvent } from "@cadre/gen/cadre/credentials/v1/audit_pb";

/** Where audit events go. */
export interface AuditSink {
  /**
   * Appends an event; resolves once it is durable. Appending an event again
   * changes nothing.
   *
   * @throws AppError AUTHZ_UNAVAILABLE if it could not be made durable in time
   */
  append(event: AuditEvent): Promise<void>;
}
