import { type Kysely, sql } from "kysely";
import { roleOf } from "./role.ts";

/**
 * Turns row-level security on for a table with a column `org_id uuid not null`:
 * the app role sees and writes the rows of the org of its transaction
 * (`Database.asOrg`) and no others, the engine role all rows. Without an org
 * the app role gets an error, never an empty answer. For use in a migration.
 */
export async function enableOrgSecurity(db: Kysely<unknown>, table: string, service: string): Promise<void> {
  const app = sql.id(roleOf(service, "app"));
  const engine = sql.id(roleOf(service, "engine"));
  await sql`alter table ${sql.table(table)} enable row level security`.execute(db);
  await sql`create policy org on ${sql.table(table)} to ${app} using (org_id = current_setting('app.org')::uuid)`.execute(
    db,
  );
  await sql`create policy engine on ${sql.table(table)} to ${engine} using (true)`.execute(db);
}
