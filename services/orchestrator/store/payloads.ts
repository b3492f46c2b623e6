/**
 * Values that are too large for an entry. Invariants:
 *
 * 1. A value is on disk before `keep` answers, so before an entry refers to it.
 * 2. Its org has a row for it from before it is written. Who removes the last
 *    row of a digest removes the file under the same lock under which it is
 *    written: a value that is kept while its equal is removed stays.
 * 3. A value is given to the orgs that kept it and to no other, whatever a
 *    history says that came from outside.
 */
import { createHash } from "node:crypto";
import { fromBinary, toBinary, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { sql } from "kysely";
import type { BlobDigest, BlobStore } from "../../runtime/blob/blob-store.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import type { Payload } from "../domain/entry.ts";
import type { Json } from "../domain/json.ts";
import { toValue } from "./proto-values.ts";
import type { OrchestratorSchema } from "./schema.ts";

/** The largest value that an entry holds itself, in bytes of its encoding. */
export const maxInlineBytes = 256 * 1024;

/** The largest value at all: more than any message brings. */
const maxBlobBytes = 64 * 1024 * 1024;

/** Where values are kept that are too large for an entry. Orgs are UUIDs as text. */
export interface Payloads {
  /**
   * Keeps a value before the entry that refers to it is stored; a small one
   * stays in the entry, and costs nothing here.
   *
   * @throws AppError MESSAGE_TOO_LARGE past 64 MiB, UNAVAILABLE if the disk is full or the database away
   */
  keep(orgId: string, value: Json): Promise<Payload>;
  /**
   * Reads a value.
   *
   * @throws AppError DATA_LOSS, naming the digest, if it is not there or not what was kept
   */
  load(orgId: string, payload: Payload): Promise<Json>;
  /**
   * Removes values that no entry can refer to any more: every run that was open
   * when its org kept it last is gone. Its file goes with the last org's row.
   *
   * @param portion how many at most
   * @returns how many were removed
   */
  collect(portion: number): Promise<number>;
}

/** Keeps large values in a blob store, and which org has which in PostgreSQL. */
export function createPayloads(database: Database<OrchestratorSchema>, blobs: BlobStore): Payloads {
  const { engine } = database;
  return {
    async keep(orgId, value) {
      if (fitsInline(value)) return { value, blob: undefined };
      const bytes = toBinary(ValueSchema, toValue(value));
      if (bytes.length <= maxInlineBytes) return { value, blob: undefined };
      const sha256 = createHash("sha256").update(bytes).digest();
      await engine
        .insertInto("blob")
        .values({ org_id: orgId, sha256, size: BigInt(bytes.length) })
        .onConflict((conflict) =>
          conflict.columns(["org_id", "sha256"]).doUpdateSet({ kept_at: sql`clock_timestamp()` }),
        )
        .execute();
      await engine.transaction().execute(async (transaction) => {
        await sql`select pg_advisory_xact_lock_shared(${lockOf(sha256)})`.execute(transaction); // 2
        await blobs.put([bytes], { maxBytes: maxBlobBytes, expected: digestOf(sha256) });
      });
      return { value, blob: { sha256, size: bytes.length } };
    },

    async load(orgId, { value, blob }) {
      if (value !== undefined || blob === undefined) return value ?? null;
      const digest = digestOf(blob.sha256);
      const row = await engine
        .selectFrom("blob")
        .select("size")
        .where("org_id", "=", orgId)
        .where("sha256", "=", Buffer.from(blob.sha256))
        .executeTakeFirst();
      const found = row === undefined ? undefined : await blobs.get(digest); // 3
      if (found === undefined) throw new AppError("DATA_LOSS", `the blob ${digest} is gone`);
      const chunks: Uint8Array[] = [];
      for await (const chunk of found.content) chunks.push(chunk);
      return toJson(ValueSchema, fromBinary(ValueSchema, Buffer.concat(chunks))) as Json;
    },

    async collect(portion) {
      const { rows } = await sql<{ org_id: string; sha256: Buffer }>`
        select org_id, sha256 from blob where ${unneeded} limit ${portion}`.execute(engine);
      let removed = 0;
      for (const { org_id: orgId, sha256 } of rows) {
        await engine.transaction().execute(async (transaction) => {
          await sql`select pg_advisory_xact_lock(${lockOf(sha256)})`.execute(transaction);
          const { numAffectedRows } = await sql`
            delete from blob where org_id = ${orgId} and sha256 = ${sha256} and ${unneeded}`.execute(transaction);
          if (numAffectedRows !== 1n) return;
          removed += 1;
          const other = await transaction
            .selectFrom("blob")
            .select("org_id")
            .where("sha256", "=", sha256)
            .limit(1)
            .executeTakeFirst();
          if (other === undefined) await blobs.delete(digestOf(sha256)); // 2
        });
      }
      return removed;
    },
  };
}

/** What `collect` may take. An hour lies between a value and the entry that refers to it, at most. */
const unneeded = sql`kept_at < clock_timestamp() - interval '1 hour' and not exists (
  select 1 from run where run.org_id = blob.org_id and run.session_id is null
    and run.created_at <= blob.kept_at + interval '1 hour'
    and (run.ended_at is null or run.ended_at >= blob.kept_at - interval '1 hour'))`;

function digestOf(sha256: Uint8Array): BlobDigest {
  return `sha256:${Buffer.from(sha256).toString("hex")}`;
}

/** The key of the advisory lock of a digest: two may share it, which costs a wait. */
function lockOf(sha256: Uint8Array): bigint {
  return Buffer.from(sha256).readBigInt64BE(0);
}

/** Whether a value surely fits into an entry, without encoding it: at three bytes a character, and some for each member. */
function fitsInline(value: Json): boolean {
  let left = maxInlineBytes;
  const spend = (part: Json): void => {
    left -= 16;
    if (left < 0) return;
    if (typeof part === "string") left -= part.length * 3;
    else if (Array.isArray(part)) for (const item of part) spend(item as Json);
    else if (typeof part === "object" && part !== null) {
      for (const [key, member] of Object.entries(part)) {
        left -= 16 + key.length * 3;
        if (left < 0) return;
        spend(member as Json);
      }
    }
  };
  spend(value);
  return left >= 0;
}
