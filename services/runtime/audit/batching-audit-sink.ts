import type { AuditEvent, AuditSinkService } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import type { Client } from "@connectrpc/connect";
import { AppError } from "../errors/app-error.ts";
import type { AuditSink } from "./audit-sink.ts";

/** A batch on its way; those who wait for it. */
interface Waiting {
  readonly event: AuditEvent;
  readonly resolve: () => void;
  readonly reject: (failure: AppError) => void;
}

const maxBatch = 500;
const maxQueued = 10_000;
const appendTimeoutMs = 2_000;

/**
 * Writes events in batches: one is under way, and the next takes what came
 * meanwhile. At most 10,000 wait; more are refused.
 *
 * @param write makes a batch durable
 */
export function createBatchingAuditSink(write: (events: AuditEvent[]) => Promise<unknown>): AuditSink {
  const queue: Waiting[] = [];
  let writing = false;

  async function drain(): Promise<void> {
    writing = true;
    while (queue.length > 0) {
      const batch = queue.splice(0, maxBatch);
      try {
        await write(batch.map(({ event }) => event));
        for (const { resolve } of batch) resolve();
      } catch (cause) {
        const failure = new AppError("AUTHZ_UNAVAILABLE", "the audit log cannot be written", {
          cause,
          retryAfterMs: 1_000,
        });
        for (const { reject } of batch) reject(failure);
      }
    }
    writing = false;
  }

  return {
    append(event) {
      if (queue.length >= maxQueued) {
        return Promise.reject(
          new AppError("AUTHZ_UNAVAILABLE", "the audit log cannot keep up", { retryAfterMs: 1_000 }),
        );
      }
      return new Promise((resolve, reject) => {
        queue.push({ event, resolve, reject });
        if (!writing) void drain();
      });
    },
  };
}

/** The audit log of the credentials service, from another service. */
export function createRemoteAuditSink(client: Pick<Client<typeof AuditSinkService>, "appendAuditEvents">): AuditSink {
  return createBatchingAuditSink((events) => client.appendAuditEvents({ events }, { timeoutMs: appendTimeoutMs }));
}
