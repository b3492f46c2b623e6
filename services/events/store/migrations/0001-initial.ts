import { sql } from "kysely";
import { enableOrgSecurity, type Migration } from "../../../runtime/postgres/migrator.ts";

/**
 * Dead letters. Key, headers and value are bytes: what others put on a topic
 * may hold characters that no text of PostgreSQL takes.
 */
export const migration: Migration = {
  name: "0001-initial",
  destructive: false,
  up: async (db) => {
    await sql`create table dead_letter (
      dead_letter_id uuid primary key,
      org_id uuid not null,
      topic text not null,
      partition int not null,
      "offset" bigint not null,
      consumer_group text not null,
      attempts int not null,
      reason text not null,
      message text not null,
      event_id text not null,
      event_type text not null,
      key bytea not null,
      headers bytea not null,
      value bytea not null,
      sha256 bytea not null,
      failed_at timestamptz not null,
      kept_at timestamptz not null default clock_timestamp(),
      state text not null default 'kept' check (state in ('kept', 'requeued', 'discarded')),
      closed_at timestamptz,
      closed_by text not null default '',
      unique (topic, partition, "offset", consumer_group, sha256)
    )`.execute(db);
    await sql`create index dead_letter_org_id on dead_letter (org_id, dead_letter_id)`.execute(db);
    await sql`create index dead_letter_kept_at on dead_letter (kept_at)`.execute(db);
    await enableOrgSecurity(db, "dead_letter", "events");
  },
  down: async (db) => {
    await sql`drop table dead_letter`.execute(db);
  },
};
