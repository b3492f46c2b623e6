import { sql } from "kysely";
import { enableOrgSecurity, type Migration } from "../../../runtime/postgres/migrator.ts";

/** Schemas, the versions of subjects that they are, and settings. */
export const migration: Migration = {
  name: "0001-initial",
  destructive: false,
  up: async (db) => {
    await sql`create table schema (
      schema_id integer generated always as identity primary key,
      org_id uuid not null,
      digest bytea not null,
      schema_type text not null check (schema_type in ('AVRO', 'JSON', 'PROTOBUF')),
      text text not null,
      descriptor bytea,
      created_at timestamptz not null default clock_timestamp(),
      constraint schema_content unique (org_id, digest),
      check ((schema_type = 'PROTOBUF') = (descriptor is not null))
    )`.execute(db);
    await sql`create table schema_reference (
      schema_id integer not null references schema on delete cascade,
      position integer not null,
      org_id uuid not null,
      name text not null,
      subject text collate "C" not null,
      version integer not null,
      referenced_id integer not null references schema,
      primary key (schema_id, position)
    )`.execute(db);
    await sql`create index schema_reference_target on schema_reference (org_id, subject, version)`.execute(db);
    await sql`create table subject_version (
      org_id uuid not null,
      subject text collate "C" not null,
      version integer not null check (version >= 1),
      schema_id integer not null references schema,
      deleted boolean not null default false,
      created_at timestamptz not null default clock_timestamp(),
      primary key (org_id, subject, version)
    )`.execute(db);
    await sql`create index subject_version_schema on subject_version (schema_id)`.execute(db);
    await sql`create unique index subject_version_live on subject_version (org_id, subject, schema_id)
      where not deleted`.execute(db);
    await sql`create table setting (
      org_id uuid not null,
      subject text collate "C" not null,
      compatibility text,
      mode text,
      primary key (org_id, subject)
    )`.execute(db);
    for (const table of tables) await enableOrgSecurity(db, table, "registry");
  },
  down: async (db) => {
    for (const table of tables.toReversed()) await sql`drop table ${sql.table(table)}`.execute(db);
  },
};

const tables = ["schema", "schema_reference", "subject_version", "setting"];
