import type { Kysely, Selectable, Transaction } from "kysely";
import type { Lookup } from "./key-store.ts";
import type { CredentialsSchema, OrgTable } from "./schema.ts";

/** An org as it is stored. */
export type StoredOrg = Selectable<OrgTable>;

/** An org that exists, by its UUID, and the revision of the snapshot. For the engine. */
export async function findOrg(engine: Kysely<CredentialsSchema>, orgId: string): Promise<Lookup<StoredOrg>> {
  const row = await engine
    .selectFrom("revision")
    .leftJoin("org", (join) => join.on("org.org_id", "=", orgId).on("org.deleted_at", "is", null))
    .selectAll("org")
    .select("revision.value as revision")
    .executeTakeFirstOrThrow();
  const { revision, org_id, name, operator, created_at, deleted_at } = row;
  if (org_id === null || name === null || operator === null || created_at === null) {
    return { found: undefined, revision };
  }
  return { found: { org_id, name, operator, created_at, deleted_at }, revision };
}

/** Stores an org. For the engine. */
export async function insertOrg(
  transaction: Transaction<CredentialsSchema>,
  org: { readonly org_id: string; readonly name: string; readonly operator: boolean },
): Promise<StoredOrg> {
  return transaction
    .insertInto("org")
    .values({ ...org, deleted_at: null })
    .returningAll()
    .executeTakeFirstOrThrow();
}
