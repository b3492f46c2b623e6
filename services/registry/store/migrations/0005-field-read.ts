import { sql } from "kysely";
import { enableOrgSecurity, type Migration } from "../../../runtime/postgres/migrator.ts";

/** When consumer groups last read fields of messages; under the empty name, when they last sampled the message. */
export const migration: Migration = {
  name: "0005-field-read",
  destructive: false,
  up: async (db) => {
    await sql`create table field_read (
      org_id uuid not null,
      type_name text collate "C" not null,
      field text collate "C" not null,
      consumer_group text collate "C" not null,
      last_read_at timestamptz not null,
      primary key (org_id, type_name, field, consumer_group)
    )`.execute(db);
    await enableOrgSecurity(db, "field_read", "registry");
  },
  down: async (db) => {
    await sql`drop table field_read`.execute(db);
  },
};
