import { sql } from "kysely";
import { createHandledEventTable, dropHandledEventTable } from "../../services/runtime/bus/consumer/handled-event.ts";
import { enableOrgSecurity, type Migration } from "../../services/runtime/postgres/migrator.ts";

/** A consumer's own tables: one row for each time that an event had its effect. */
export interface EffectSchema {
  effect: { org_id: string; event_id: string; seq: number };
}

/** Of a service `sample`. */
export const effectMigrations: readonly Migration[] = [
  {
    name: "0001-initial",
    destructive: false,
    up: async (db) => {
      await createHandledEventTable(db, "sample");
      await sql`create table effect (org_id uuid not null, event_id text not null, seq int not null)`.execute(db);
      await enableOrgSecurity(db, "effect", "sample");
    },
    down: async (db) => {
      await sql`drop table effect`.execute(db);
      await dropHandledEventTable(db);
    },
  },
];
