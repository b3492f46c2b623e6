import { createHmac, timingSafeEqual } from "node:crypto";
import { sql } from "kysely";
import { ConfigurationError } from "../../runtime/config/settings.ts";
import { replacePrivateFile } from "../../runtime/identity/key-file.ts";
import { foundOrg } from "./create-org.ts";
import type { CredentialsDeps } from "./credentials-deps.ts";

// Invariants:
// 1. The installation has one first org and one first key, however many
//    processes start at once: they take turns by a lock of the database.
// 2. The key's file is on disk before the key is stored. After a crash in
//    between the next start makes another one; a stored key without its file
//    would lock everybody out.

/** The first org's key, in the start that made it and never again. */
export interface FirstKey {
  readonly secret: string;
  /** The file that it was written to, for its owner alone. */
  readonly file: string;
}

export interface FirstStartOptions {
  /** `<data>/admin.key`. */
  readonly keyFile: string;
  /** When the key ends; `null` for never. */
  readonly keyExpiresAt: Date | null;
}

/**
 * Sets the installation up if that was not done: the org `default`, which runs
 * it, and the key of its owner. A file that was lost is not made again.
 *
 * @throws ConfigurationError if the server's key is not the one that the stored keys were made with
 */
export async function firstStart(
  deps: Pick<CredentialsDeps, "database" | "environment" | "hmacKey">,
  options: FirstStartOptions,
): Promise<FirstKey | undefined> {
  const keyCheck = createHmac("sha256", deps.hmacKey).update("cadre installation").digest();
  return deps.database.engine.transaction().execute(async (transaction) => {
    await sql`select pg_advisory_xact_lock(hashtextextended('credentials.first_start', 0))`.execute(transaction);
    const done = await transaction.selectFrom("installation").select("key_check").executeTakeFirst();
    if (done !== undefined) {
      if (done.key_check.length === keyCheck.length && timingSafeEqual(done.key_check, keyCheck)) return undefined;
      throw new ConfigurationError([
        "the key of credentials is not the one that the database's API keys were made with; restore <data>/keys/credentials.key or set CADRE_CREDENTIALS_HMAC_KEY_FILE",
      ]);
    }
    const { org, apiKey } = await foundOrg(deps, transaction, {
      name: "default",
      operator: true,
      keyExpiresAt: options.keyExpiresAt,
    });
    await transaction.insertInto("installation").values({ org_id: org.org_id, key_check: keyCheck }).execute();
    replacePrivateFile(options.keyFile, `${apiKey.text}\n`);
    return { secret: apiKey.text, file: options.keyFile };
  });
}
