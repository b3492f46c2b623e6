import { sql } from "kysely";
import type { Migration } from "../../../runtime/postgres/migrator.ts";

/** Calls whose worker may not be silent for long. */
export const migration: Migration = {
  name: "0002-heartbeat",
  destructive: false,
  up: async (db) => {
    await sql`alter table call add column heartbeat_timeout_ms integer, add column heard_at timestamptz`.execute(db);
    await sql`create index call_heartbeat on call (worker_id)
      where state = 'dispatched' and heartbeat_timeout_ms is not null`.execute(db);
  },
  down: async (db) => {
    await sql`drop index call_heartbeat`.execute(db);
    await sql`alter table call drop column heartbeat_timeout_ms, drop column heard_at`.execute(db);
  },
};
