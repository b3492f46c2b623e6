import { sql } from "kysely";
import { enableOrgSecurity, type Migration } from "../../../runtime/postgres/migrator.ts";

/** Sets that break wait for an admin; versions say in which review they were approved. */
export const migration: Migration = {
  name: "0004-review",
  destructive: false,
  up: async (db) => {
    await sql`create table review (
      review_id uuid primary key,
      org_id uuid not null,
      digest text not null,
      state text not null default 'open' check (state in ('open', 'approved', 'rejected', 'expired')),
      reason text not null,
      requested_by text not null,
      requested_at timestamptz not null default clock_timestamp(),
      expires_at timestamptz not null default clock_timestamp() + interval '30 days',
      files text,
      compared text not null,
      decided_by text not null default '',
      decided_at timestamptz,
      decision_reason text not null default '',
      check ((state = 'open') = (files is not null))
    )`.execute(db);
    await sql`create unique index review_open on review (org_id, digest) where state = 'open'`.execute(db);
    await sql`create index review_newest on review (org_id, requested_at desc)`.execute(db);
    await sql`create table review_subject (
      org_id uuid not null,
      review_id uuid not null references review on delete cascade,
      subject text collate "C" not null,
      breaks boolean not null,
      primary key (org_id, subject, review_id)
    )`.execute(db);
    await sql`create index review_subject_review on review_subject (review_id)`.execute(db);
    for (const table of ["review", "review_subject"]) await enableOrgSecurity(db, table, "registry");
    await sql`alter table subject_version add column review_id uuid references review`.execute(db);
  },
  down: async (db) => {
    await sql`alter table subject_version drop column review_id`.execute(db);
    await sql`drop table review_subject`.execute(db);
    await sql`drop table review`.execute(db);
  },
};
