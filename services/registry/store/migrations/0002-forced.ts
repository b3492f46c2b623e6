import { sql } from "kysely";
import type { Migration } from "../../../runtime/postgres/migration.ts";

/** Versions say why they were registered whatever they break. */
export const migration: Migration = {
  name: "0002-forced",
  destructive: false,
  up: async (db) => {
    await sql`alter table subject_version add column forced_reason text not null default ''`.execute(db);
  },
  down: async (db) => {
    await sql`alter table subject_version drop column forced_reason`.execute(db);
  },
};
