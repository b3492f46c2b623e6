import { sql } from "kysely";

/** When the worker of a dispatched call has said nothing of it for too long; null for never. */
export const silentAt = sql`greatest(dispatched_at, heard_at) + make_interval(secs => heartbeat_timeout_ms / 1000.0)`;
