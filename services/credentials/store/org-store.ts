import type { Kysely, Selectable, Transaction } from "kysely";
import type { TokenKey } from "../domain/token.ts";
import type { Lookup } from "./key-store.ts";
import type { CredentialsSchema, OrgTable } from "./schema.ts";

/** An org as it is stored. */
export type StoredOrg = Selectable<OrgTable>;

/** An org that exists, by its UUID, and the revision of the snapshot. For the engine. */
export async function findOrg(engine: Kysely<CredentialsSchema>, orgId: string): Promise<Lookup<StoredOrg>> {
  return toLookup(await orgQuery(engine, orgId).executeTakeFirstOrThrow());
}

/** The same for who comes with a JWT: also whether the org has revoked that token, in the same snapshot. */
export async function findOrgOfToken(
  engine: Kysely<CredentialsSchema>,
  orgId: string,
  { issuer, tokenId }: TokenKey,
): Promise<Lookup<StoredOrg> & { readonly isRevoked: boolean }> {
  const row = await orgQuery(engine, orgId)
    .leftJoin("revoked_token", (join) =>
      join
        .on("revoked_token.org_id", "=", orgId)
        .on("revoked_token.issuer", "=", issuer)
        .on("revoked_token.token_id", "=", tokenId),
    )
    .select("revoked_token.revoked_at")
    .executeTakeFirstOrThrow();
  return { ...toLookup(row), isRevoked: row.revoked_at !== null };
}

/** The UUID of the org that was made at first start. For the engine. */
export async function findOperatorOrg(engine: Kysely<CredentialsSchema>): Promise<string> {
  const query = engine.selectFrom("org").select("org_id").where("operator", "=", true);
  return (await query.executeTakeFirstOrThrow()).org_id;
}

function orgQuery(engine: Kysely<CredentialsSchema>, orgId: string) {
  return engine
    .selectFrom("revision")
    .leftJoin("org", (join) => join.on("org.org_id", "=", orgId).on("org.deleted_at", "is", null))
    .selectAll("org")
    .select("revision.value as revision");
}

function toLookup(row: Nullable<StoredOrg> & { readonly revision: bigint }): Lookup<StoredOrg> {
  const { revision, org_id, name, operator, created_at, deleted_at } = row;
  if (org_id === null || name === null || operator === null || created_at === null) {
    return { found: undefined, revision };
  }
  return { found: { org_id, name, operator, created_at, deleted_at }, revision };
}

type Nullable<T> = { readonly [K in keyof T]: T[K] | null };

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
