import { sql } from "kysely";
import type { Migration } from "../../../runtime/postgres/migration.ts";

/** Versions say who registered them, and with which set. */
export const migration: Migration = {
  name: "0003-origin",
  destructive: false,
  up: async (db) => {
    await sql`alter table subject_version
      add column registered_by text not null default '',
      add column set_digest text not null default ''`.execute(db);
  },
  down: async (db) => {
    await sql`alter table subject_version drop column registered_by, drop column set_digest`.execute(db);
  },
};
