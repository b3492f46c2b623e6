import { sql } from "kysely";
import { createIdempotencyTable, dropIdempotencyTable } from "../../../runtime/postgres/idempotency.ts";
import { enableOrgSecurity, type Migration } from "../../../runtime/postgres/migrator.ts";

export const migration: Migration = {
  name: "0001-initial",
  destructive: false,
  up: async (db) => {
    await sql`create table org (
      org_id uuid primary key,
      name text not null,
      operator boolean not null default false,
      created_at timestamptz not null default clock_timestamp(),
      deleted_at timestamptz
    )`.execute(db);
    await sql`create unique index org_operator on org (operator) where operator`.execute(db);
    await enableOrgSecurity(db, "org", "credentials");

    await sql`create table installation (
      id boolean primary key default true check (id),
      org_id uuid not null references org,
      key_check bytea not null
    )`.execute(db);

    await sql`create table api_key (
      key_id uuid primary key,
      org_id uuid not null references org,
      name text not null,
      role smallint not null check (role between 1 and 4),
      scopes text[] not null,
      tools text[] not null,
      prefix text not null,
      digest bytea not null unique check (length(digest) = 32),
      created_by text not null,
      created_at timestamptz not null default clock_timestamp(),
      expires_at timestamptz,
      last_used_at timestamptz,
      revoked_at timestamptz
    )`.execute(db);
    await sql`create index api_key_org on api_key (org_id, key_id)`.execute(db);
    await enableOrgSecurity(db, "api_key", "credentials");

    await sql`create table org_limit (
      org_id uuid not null references org,
      name text not null,
      value bigint not null check (value >= 0),
      primary key (org_id, name)
    )`.execute(db);
    await enableOrgSecurity(db, "org_limit", "credentials");

    await sql`create table revision (
      id boolean primary key default true check (id),
      value bigint not null
    )`.execute(db);
    await sql`insert into revision (value) values (0)`.execute(db);
    await sql`create table change (
      revision bigint primary key,
      kind text not null check (kind in ('credential_revoked', 'limits_changed')),
      org_id uuid not null,
      subject text not null,
      token_id text not null
    )`.execute(db);
    await sql`create table replica (
      process_id text primary key,
      seen_at timestamptz not null default clock_timestamp()
    )`.execute(db);

    await sql`create table audit_entry (
      org_id uuid not null,
      seq bigint not null,
      event_id uuid not null,
      at timestamptz not null,
      type text not null,
      actor text not null,
      action text not null,
      resource text not null,
      decision smallint not null,
      reason text not null,
      request_id text not null,
      trace_id text not null,
      source text not null,
      count integer not null,
      previous_hash bytea not null,
      hash bytea not null,
      primary key (org_id, seq),
      unique (org_id, event_id)
    )`.execute(db);
    await enableOrgSecurity(db, "audit_entry", "credentials");
    // Two walls around what was written: the roles lack the right, and a
    // statement of a role that has it fails.
    await sql`revoke update, delete, truncate on audit_entry from cadre_credentials_app, cadre_credentials_engine`.execute(
      db,
    );
    await sql`create function refuse_change() returns trigger language plpgsql as $$
      begin
        raise exception 'the audit log is append-only';
      end
    $$`.execute(db);
    await sql`create trigger append_only before update or delete or truncate on audit_entry
      for each statement execute function refuse_change()`.execute(db);

    await sql`create table audit_head (
      org_id uuid primary key,
      seq bigint not null,
      hash bytea not null,
      mac bytea not null
    )`.execute(db);
    await enableOrgSecurity(db, "audit_head", "credentials");

    await createIdempotencyTable(db, "credentials");
  },
  down: async (db) => {
    await dropIdempotencyTable(db);
    await sql`drop table audit_head, audit_entry`.execute(db);
    await sql`drop function refuse_change()`.execute(db);
    await sql`drop table replica, change, revision, org_limit, api_key, installation, org`.execute(db);
  },
};
