import type { Kysely, Transaction } from "kysely";
import type { Lookup } from "./key-store.ts";
import type { CredentialsSchema } from "./schema.ts";

/** What an org has set, by name, and the revision of the snapshot. */
export async function findLimits(
  db: Kysely<CredentialsSchema>,
  orgId: string,
): Promise<Lookup<ReadonlyMap<string, number>>> {
  const rows = await db
    .selectFrom("revision")
    .leftJoin("org_limit", (join) => join.on("org_limit.org_id", "=", orgId))
    .select(["revision.value as revision", "org_limit.name", "org_limit.value"])
    .execute();
  const set = new Map<string, number>();
  for (const { name, value } of rows) if (name !== null && value !== null) set.set(name, Number(value));
  return { found: set, revision: rows[0]?.revision ?? 0n };
}

/** Sets a limit of the transaction's org. */
export async function writeLimit(
  transaction: Transaction<CredentialsSchema>,
  orgId: string,
  name: string,
  value: number,
): Promise<void> {
  await transaction
    .insertInto("org_limit")
    .values({ org_id: orgId, name, value: BigInt(value) })
    .onConflict((conflict) => conflict.columns(["org_id", "name"]).doUpdateSet({ value: BigInt(value) }))
    .execute();
}
