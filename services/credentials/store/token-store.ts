import { sql, type Transaction } from "kysely";
import type { TokenKey } from "../domain/token.ts";
import type { CredentialsSchema } from "./schema.ts";

/** What became of a revocation. */
export interface RevokedToken {
  /** By which a revocation that was there before is told apart. */
  readonly isNew: boolean;
  readonly rememberedUntil: Date;
}

/** Forgets what need not be remembered of an org, and counts the rest. */
export async function countRevokedTokens(transaction: Transaction<CredentialsSchema>, orgId: string): Promise<number> {
  await transaction
    .deleteFrom("revoked_token")
    .where("org_id", "=", orgId)
    .where("remembered_until", "<", sql<Date>`clock_timestamp()`)
    .execute();
  const { count } = await transaction
    .selectFrom("revoked_token")
    .select((select) => select.fn.countAll<bigint>().as("count"))
    .where("org_id", "=", orgId)
    .executeTakeFirstOrThrow();
  return Number(count);
}

/** Marks a token of the transaction's org as revoked. Of two times until which it is remembered the later one counts. */
export async function markTokenRevoked(
  transaction: Transaction<CredentialsSchema>,
  orgId: string,
  { issuer, tokenId }: TokenKey,
  rememberedUntil: Date,
): Promise<RevokedToken> {
  const row = await transaction
    .insertInto("revoked_token")
    .values({ org_id: orgId, issuer, token_id: tokenId, remembered_until: rememberedUntil })
    .onConflict((conflict) =>
      conflict.columns(["org_id", "issuer", "token_id"]).doUpdateSet({
        remembered_until: sql<Date>`greatest(revoked_token.remembered_until, excluded.remembered_until)`,
      }),
    )
    .returning(["remembered_until", sql<boolean>`xmax = 0`.as("is_new")])
    .executeTakeFirstOrThrow();
  return { isNew: row.is_new, rememberedUntil: row.remembered_until };
}
