import { sql } from "kysely";
import { enableOrgSecurity, type Migration } from "../../../runtime/postgres/migrator.ts";

export const migration: Migration = {
  name: "0002-revoked-token",
  destructive: false,
  up: async (db) => {
    await sql`create table revoked_token (
      org_id uuid not null references org,
      issuer text not null,
      token_id text not null,
      remembered_until timestamptz not null,
      revoked_at timestamptz not null default clock_timestamp(),
      primary key (org_id, issuer, token_id)
    )`.execute(db);
    await sql`create index revoked_token_end on revoked_token (org_id, remembered_until)`.execute(db);
    await enableOrgSecurity(db, "revoked_token", "credentials");
  },
  down: async (db) => {
    await sql`drop table revoked_token`.execute(db);
  },
};
