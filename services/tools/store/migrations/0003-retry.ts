import { sql } from "kysely";
import type { Migration } from "../../../runtime/postgres/migration.ts";

/** How many failures of a call its caller had on record when it asked last: those outcomes are void. */
export const migration: Migration = {
  name: "0003-retry",
  destructive: false,
  up: async (db) => {
    await sql`alter table call add column void_failures integer not null default 0`.execute(db);
  },
  down: async (db) => {
    await sql`alter table call drop column void_failures`.execute(db);
  },
};
