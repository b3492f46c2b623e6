import { sql } from "kysely";
import { enableOrgSecurity, type Migration } from "../../../runtime/postgres/migrator.ts";

export const migration: Migration = {
  name: "0003-relay",
  destructive: false,
  up: async (db) => {
    // The defaults are for rows that are there, and for those that an older build still adds.
    await sql`alter table change
      add event_id uuid not null default gen_random_uuid(),
      add at timestamptz not null default clock_timestamp(),
      add request_id text not null default '',
      add traceparent text not null default ''`.execute(db);

    // Apart from the rows that requests lock: the relay never makes one wait.
    await sql`create table relay (
      id boolean primary key default true check (id),
      holder text not null default '',
      held_until timestamptz not null default '-infinity',
      relayed_revision bigint not null
    )`.execute(db);
    // Facts of changes begin here: what older rows come from was not kept.
    await sql`insert into relay (relayed_revision) select value from revision`.execute(db);
    await sql`create table audit_relayed (
      org_id uuid primary key,
      seq bigint not null,
      at timestamptz not null default clock_timestamp()
    )`.execute(db);
    await enableOrgSecurity(db, "audit_relayed", "credentials");
    await sql`revoke insert, update, delete on relay, audit_relayed from cadre_credentials_app`.execute(db);
  },
  down: async (db) => {
    await sql`drop table audit_relayed, relay`.execute(db);
    await sql`alter table change drop event_id, drop at, drop request_id, drop traceparent`.execute(db);
  },
};
