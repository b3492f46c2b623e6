import { type Kysely, sql, type Transaction } from "kysely";
import {
  type AuditContent,
  type AuditFault,
  auditSealKey,
  ChainCheck,
  chain,
  genesisHash,
  sealHead,
} from "../domain/audit-chain.ts";
import type { CredentialsSchema } from "./schema.ts";

/** The append-only audit log, one hash chain an org. */
export interface AuditLog {
  /**
   * Appends within a transaction, in the given order. An event that is there
   * already is left out. Holds the end of each org's log until the transaction
   * ends, so do it late; whoever also takes a revision takes it afterwards.
   */
  append(transaction: Transaction<CredentialsSchema>, contents: readonly AuditContent[]): Promise<void>;
  /** Looks through an org's log; `undefined` if it is whole. */
  verify(db: Kysely<CredentialsSchema>, orgId: string): Promise<AuditFault | undefined>;
}

const verifyBatch = 1_000;

/** @param serverKey the key that seals the ends of the logs is derived from it */
export function createAuditLog(serverKey: Uint8Array): AuditLog {
  const sealKey = auditSealKey(serverKey);

  async function appendTo(
    transaction: Transaction<CredentialsSchema>,
    orgId: string,
    contents: readonly AuditContent[],
  ): Promise<void> {
    const empty = { seq: 0n, hash: genesisHash };
    await transaction
      .insertInto("audit_head")
      .values({ org_id: orgId, ...empty, mac: sealHead(sealKey, orgId, empty) })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
    const head = await transaction
      .selectFrom("audit_head")
      .select(["seq", "hash"])
      .where("org_id", "=", orgId)
      .forUpdate()
      .executeTakeFirstOrThrow();
    const ids = contents.map((content) => content.event_id);
    const known = await transaction
      .selectFrom("audit_entry")
      .select("event_id")
      .where("org_id", "=", orgId)
      .where("event_id", "=", sql<string>`any(${ids})`)
      .execute();
    const seen = new Set(known.map((row) => row.event_id));
    const fresh = contents.filter(({ event_id }) => !seen.has(event_id) && seen.add(event_id));
    const entries = chain(head, fresh);
    const last = entries.at(-1);
    if (last === undefined) return;
    await transaction.insertInto("audit_entry").values(entries).execute();
    await transaction
      .updateTable("audit_head")
      .set({ seq: last.seq, hash: last.hash, mac: sealHead(sealKey, orgId, last) })
      .where("org_id", "=", orgId)
      .execute();
  }

  return {
    async append(transaction, contents) {
      const byOrg = Map.groupBy(contents, (content) => content.org_id);
      // One order everywhere, else two batches could wait for each other.
      for (const orgId of [...byOrg.keys()].sort()) await appendTo(transaction, orgId, byOrg.get(orgId) ?? []);
    },
    verify: (db, orgId) =>
      // One snapshot, so that what is appended meanwhile is no fault.
      db
        .transaction()
        .setIsolationLevel("repeatable read")
        .execute(async (transaction) => {
          const check = new ChainCheck();
          let after = -1n << 62n;
          for (;;) {
            const entries = await transaction
              .selectFrom("audit_entry")
              .selectAll()
              .where("org_id", "=", orgId)
              .where("seq", ">", after)
              .orderBy("seq")
              .limit(verifyBatch)
              .execute();
            for (const entry of entries) {
              const fault = check.next(entry);
              if (fault !== undefined) return fault;
              after = entry.seq;
            }
            if (entries.length < verifyBatch) break;
          }
          const head = await transaction
            .selectFrom("audit_head")
            .select(["seq", "hash", "mac"])
            .where("org_id", "=", orgId)
            .executeTakeFirst();
          return check.end(sealKey, orgId, head);
        }),
  };
}
