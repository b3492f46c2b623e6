import { type Kysely, type Selectable, sql, type Transaction } from "kysely";
import type { ApiKeyTable, CredentialsSchema } from "./schema.ts";

/** An API key as it is stored. */
export type StoredKey = Omit<Selectable<ApiKeyTable>, "digest">;

/** A key with what decides whether it may be used, all from one snapshot. */
export interface FoundKey {
  readonly key: StoredKey;
  readonly digest: Buffer;
  /** By the database's clock. */
  readonly isExpired: boolean;
  readonly org: { readonly operator: boolean; readonly isDeleted: boolean };
}

/** A look-up: what was found, and the revision of the snapshot it was found in. */
export interface Lookup<T> {
  readonly found: T | undefined;
  readonly revision: bigint;
}

/** What a page of keys shows, and the first key that it does not. */
export interface KeyPage {
  readonly keys: readonly StoredKey[];
  readonly nextKeyId: string | undefined;
}

const keyColumns = [
  "api_key.key_id",
  "api_key.org_id",
  "api_key.name",
  "api_key.role",
  "api_key.scopes",
  "api_key.tools",
  "api_key.prefix",
  "api_key.created_by",
  "api_key.created_at",
  "api_key.expires_at",
  "api_key.last_used_at",
  "api_key.revoked_at",
] as const;

/** Finds a key by the digest of its text, or by its id, in any org. For the engine. */
export async function findKey(
  engine: Kysely<CredentialsSchema>,
  by: { readonly digest: Buffer } | { readonly keyId: string },
): Promise<Lookup<FoundKey>> {
  const row = await engine
    .selectFrom("revision")
    .leftJoin("api_key", (join) =>
      "digest" in by ? join.on("api_key.digest", "=", by.digest) : join.on("api_key.key_id", "=", by.keyId),
    )
    .leftJoin("org", "org.org_id", "api_key.org_id")
    .select([...keyColumns, "api_key.digest", "revision.value as revision", "org.operator", "org.deleted_at"])
    .select(sql<boolean>`coalesce(api_key.expires_at <= clock_timestamp(), false)`.as("is_expired"))
    .executeTakeFirstOrThrow();
  const { digest, revision, operator, deleted_at, is_expired, ...key } = row;
  if (key.key_id === null || digest === null) return { found: undefined, revision };
  return {
    // The join found a key, so none of its columns that are never null is.
    found: {
      key: key as StoredKey,
      digest,
      isExpired: is_expired,
      org: { operator: operator === true, isDeleted: deleted_at !== null },
    },
    revision,
  };
}

/** Stores a key. */
export async function insertKey(
  transaction: Transaction<CredentialsSchema>,
  key: Omit<StoredKey, "created_at" | "last_used_at" | "revoked_at"> & { readonly digest: Buffer },
): Promise<StoredKey> {
  return transaction
    .insertInto("api_key")
    .values({ ...key, scopes: [...key.scopes], tools: [...key.tools], last_used_at: null, revoked_at: null })
    .returning([...keyColumns])
    .executeTakeFirstOrThrow();
}

/** How many keys of the transaction's org can be used. */
export async function countUsableKeys(transaction: Transaction<CredentialsSchema>): Promise<number> {
  const { count } = await transaction
    .selectFrom("api_key")
    .select((select) => select.fn.countAll<bigint>().as("count"))
    .where("revoked_at", "is", null)
    .where((where) =>
      where.or([where("expires_at", "is", null), where("expires_at", ">", sql<Date>`clock_timestamp()`)]),
    )
    .executeTakeFirstOrThrow();
  return Number(count);
}

/** A key of the transaction's org. */
export async function readKey(
  transaction: Transaction<CredentialsSchema>,
  keyId: string,
): Promise<StoredKey | undefined> {
  return transaction
    .selectFrom("api_key")
    .select([...keyColumns])
    .where("key_id", "=", keyId)
    .executeTakeFirst();
}

/** The keys of the transaction's org, newest first, from `fromKeyId` on. */
export async function listKeys(
  transaction: Transaction<CredentialsSchema>,
  size: number,
  fromKeyId: string | undefined,
): Promise<KeyPage> {
  const rows = await transaction
    .selectFrom("api_key")
    .select([...keyColumns])
    .$if(fromKeyId !== undefined, (query) => query.where("key_id", "<=", fromKeyId ?? ""))
    .orderBy("key_id", "desc")
    .limit(size + 1)
    .execute();
  return { keys: rows.slice(0, size), nextKeyId: rows[size]?.key_id };
}

/**
 * Revokes a key of the transaction's org. `isNew` is false if it was revoked
 * before; `undefined` if there is none.
 */
export async function markRevoked(
  transaction: Transaction<CredentialsSchema>,
  keyId: string,
): Promise<{ readonly key: StoredKey; readonly isNew: boolean } | undefined> {
  const revoked = await transaction
    .updateTable("api_key")
    .set({ revoked_at: sql<Date>`clock_timestamp()` })
    .where("key_id", "=", keyId)
    .where("revoked_at", "is", null)
    .returning([...keyColumns])
    .executeTakeFirst();
  if (revoked !== undefined) return { key: revoked, isNew: true };
  const key = await readKey(transaction, keyId);
  return key === undefined ? undefined : { key, isNew: false };
}

/** Notes when keys were used last. A later time that is there already stays. For the engine. */
export async function markUsed(engine: Kysely<CredentialsSchema>, uses: ReadonlyMap<string, Date>): Promise<void> {
  const ids = [...uses.keys()];
  const times = [...uses.values()];
  await sql`
    update api_key set last_used_at = used.at
      from unnest(${ids}::uuid[], ${times}::timestamptz[]) as used (key_id, at)
     where api_key.key_id = used.key_id
       and (api_key.last_used_at is null or api_key.last_used_at < used.at)`.execute(engine);
}
