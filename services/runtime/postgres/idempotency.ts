import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from "node:crypto";
import { type DescMethod, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { type Kysely, type QueryExecutorProvider, sql } from "kysely";
import pg from "pg";
import { AppError } from "../errors/app-error.ts";
import type { Logger } from "../log/log.ts";
import { enableOrgSecurity } from "./org-security.ts";
import { startPruning } from "./pruning.ts";

// Invariants:
// I1. The record of a call and the call's own changes commit in one transaction,
//     so a recorded answer means that the change is there, and the other way round.
// I2. Of equal calls at once, one holds the record's row from its first
//     statement on; the others wait for its transaction to end.
// I3. The database alone gives away no answer: it is sealed with the caller's
//     key, of which only a digest is stored. Answers may hold new credentials.

/** How long a key is remembered, in hours. */
export const idempotencyKeptHours = 24;

/** A call that its caller may repeat. */
export interface IdempotentCall<M extends DescMethod> {
  /** The org's UUID. */
  readonly orgId: string;
  readonly method: M;
  /** The caller's key (`RequestContext.idempotencyKey`); empty means that the caller gave none. */
  readonly key: string;
  readonly request: MessageShape<M["input"]>;
}

/**
 * Runs `work` once for a key: records request and answer in the transaction
 * that `work` changes the state in, and answers an equal call from the record.
 * The record is kept for 24 hours. Without a key it only runs `work`.
 *
 * Call it first in the transaction. What `work` throws rolls the record back,
 * so a failed call may be repeated with its key.
 *
 * @param transaction one of `Database.asOrg`, for the same org
 * @throws AppError IDEMPOTENCY_KEY_REUSED if the key came with another request
 * @throws AppError IDEMPOTENCY_IN_PROGRESS if an equal call is still at work after the lock timeout (5 s)
 */
export async function withIdempotency<M extends DescMethod>(
  transaction: QueryExecutorProvider,
  call: IdempotentCall<M>,
  work: () => Promise<MessageShape<M["output"]>>,
): Promise<MessageShape<M["output"]>> {
  if (call.key === "") return work();
  const { orgId, method } = call;
  const name = `${method.parent.typeName}/${method.name}`;
  const context = `${orgId} ${name}`;
  const keyDigest = createHash("sha256").update(`${context} ${call.key}`).digest();
  const requestDigest = createHash("sha256").update(toBinary(method.input, call.request)).digest();

  if (!(await claim(transaction, orgId, name, keyDigest, requestDigest))) {
    const { rows } = await sql<{ request_digest: Buffer; response: Buffer | null }>`
      select request_digest, response from idempotency
       where org_id = ${orgId} and method = ${name} and key_digest = ${keyDigest}`.execute(transaction);
    const record = rows[0];
    // Pruned between the two statements, or made and not answered by a call in this same transaction.
    if (record?.response === undefined || record.response === null) throw inProgress();
    if (!record.request_digest.equals(requestDigest)) {
      throw new AppError("IDEMPOTENCY_KEY_REUSED", "idempotency-key: was used with another request");
    }
    return fromBinary(method.output, open(record.response, call.key, context)) as MessageShape<M["output"]>;
  }
  const response = await work();
  const sealed = seal(toBinary(method.output, response), call.key, context);
  await sql`update idempotency set response = ${sealed}
    where org_id = ${orgId} and method = ${name} and key_digest = ${keyDigest}`.execute(transaction);
  return response;
}

/** Makes the record's row, or takes over an outdated one. Waits while another transaction holds it. */
async function claim(
  transaction: QueryExecutorProvider,
  orgId: string,
  method: string,
  keyDigest: Buffer,
  requestDigest: Buffer,
): Promise<boolean> {
  try {
    const { rows } = await sql`
      insert into idempotency (org_id, method, key_digest, request_digest, expires_at)
      values (${orgId}, ${method}, ${keyDigest}, ${requestDigest},
              clock_timestamp() + make_interval(hours => ${idempotencyKeptHours}))
      on conflict (org_id, method, key_digest) do update
        set request_digest = excluded.request_digest, response = null, expires_at = excluded.expires_at
        where idempotency.expires_at < clock_timestamp()
      returning 1`.execute(transaction);
    return rows.length === 1;
  } catch (error) {
    const lockTimeout = "55P03";
    if (error instanceof AppError && error.cause instanceof pg.DatabaseError && error.cause.code === lockTimeout) {
      throw inProgress(error);
    }
    throw error;
  }
}

function inProgress(cause?: unknown): AppError {
  const message = "an equal call with this idempotency key is still at work";
  return new AppError("IDEMPOTENCY_IN_PROGRESS", message, { cause, retryAfterMs: 1_000 });
}

const nonceBytes = 12;
const tagBytes = 16;

/** AES-256-GCM under a key of its own per record (I3): nonce, tag, ciphertext. */
function seal(answer: Uint8Array, key: string, context: string): Buffer {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv("aes-256-gcm", sealingKey(key, context), nonce);
  cipher.setAAD(Buffer.from(context));
  const sealed = Buffer.concat([cipher.update(answer), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed]);
}

function open(sealed: Buffer, key: string, context: string): Uint8Array {
  const nonce = sealed.subarray(0, nonceBytes);
  const decipher = createDecipheriv("aes-256-gcm", sealingKey(key, context), nonce);
  decipher.setAAD(Buffer.from(context));
  decipher.setAuthTag(sealed.subarray(nonceBytes, nonceBytes + tagBytes));
  try {
    return Buffer.concat([decipher.update(sealed.subarray(nonceBytes + tagBytes)), decipher.final()]);
  } catch (cause) {
    throw new AppError("DATA_LOSS", "the recorded answer is damaged", { cause });
  }
}

function sealingKey(key: string, context: string): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", key, "cadre idempotency", context, 32));
}

/** For a migration's `up`: the table that `withIdempotency` keeps its records in. */
export async function createIdempotencyTable(db: Kysely<unknown>, service: string): Promise<void> {
  await sql`create table idempotency (
    org_id uuid not null,
    method text not null,
    key_digest bytea not null,
    request_digest bytea not null,
    response bytea,
    expires_at timestamptz not null,
    primary key (org_id, method, key_digest)
  )`.execute(db);
  await sql`create index idempotency_expires_at on idempotency (expires_at)`.execute(db);
  await enableOrgSecurity(db, "idempotency", service);
}

/** For a migration's `down`. */
export async function dropIdempotencyTable(db: Kysely<unknown>): Promise<void> {
  await sql`drop table idempotency`.execute(db);
}

/** Removes at most `limit` outdated records; returns how many. Several processes may do so at once. */
export async function pruneIdempotency(engine: QueryExecutorProvider, limit: number): Promise<number> {
  const { numAffectedRows } = await sql`
    delete from idempotency where (org_id, method, key_digest) in (
      select org_id, method, key_digest from idempotency where expires_at < clock_timestamp()
       order by expires_at limit ${limit} for update skip locked
    )`.execute(engine);
  return Number(numAffectedRows ?? 0n);
}

/** Prunes as `startPruning` does. */
export function startIdempotencyPruning(engine: QueryExecutorProvider, log: Logger): () => Promise<void> {
  return startPruning("idempotency records", (limit) => pruneIdempotency(engine, limit), log);
}
