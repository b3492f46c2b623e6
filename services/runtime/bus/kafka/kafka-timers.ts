import { createRequire } from "node:module";

/** What is touched of kafkajs's queue of requests, one for each connection. */
interface RequestQueue {
  readonly pending: readonly unknown[];
  scheduleCheckPendingRequests(): void;
}

/**
 * Ends a busy loop of kafkajs 2.2.4: once it has had its first answer, each
 * connection looks a thousand times a second whether a request waits, although
 * none does (`setTimeout` with a negative time, again and again; Node says
 * TimeoutNegativeWarning). Nothing needs that look: `push` schedules one for
 * what has to wait, and so does every answer. Idempotent.
 */
export function calmKafkaTimers(): void {
  if (isCalm) return;
  isCalm = true;
  const queueClass: { readonly prototype: RequestQueue } = createRequire(import.meta.url)(
    "kafkajs/src/network/requestQueue/index.js",
  );
  const { prototype } = queueClass;
  const schedule = prototype.scheduleCheckPendingRequests;
  prototype.scheduleCheckPendingRequests = function (this: RequestQueue) {
    if (this.pending.length > 0) schedule.call(this);
  };
}

let isCalm = false;
