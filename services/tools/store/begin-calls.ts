import { type QueryExecutorProvider, type RawBuilder, sql } from "kysely";
import { AppError } from "../../runtime/errors/app-error.ts";
import { byteaArray } from "../../runtime/postgres/bytea-array.ts";
import type { CallState, Progress } from "../domain/call.ts";
import { limitExceeded } from "../domain/limit.ts";
import type { BeginCall } from "./call-store.ts";
import { type Announce, callTopic } from "./wake-ups.ts";

/** A call with the id that it gets if its key is new. */
export interface NewCall {
  readonly callId: string;
  readonly call: BeginCall;
}

/**
 * Records those of an org's calls whose keys are new, as far as there is room.
 * Rows are inserted in the order of their keys: two groups with the same keys
 * never wait for each other.
 *
 * @returns a statement that gives the ids of those that it recorded
 */
export function insertNew(orgId: string, calls: readonly NewCall[]): RawBuilder<{ readonly call_id: string }> {
  const column = <T>(of: (call: BeginCall) => T): T[] => calls.map(({ call }) => of(call));
  const maxOpen = Math.min(...column((call) => call.maxOpen));
  return sql`/* prepared: tools_insert_new */
    with asked as (
      select * from unnest(
        ${calls.map(({ callId }) => callId)}::uuid[], ${column(({ key }) => key)}::text[],
        ${byteaArray(column(({ requestHash }) => requestHash))}::bytea[], ${column(({ epoch }) => epoch)}::bigint[],
        ${column(({ toolId }) => toolId)}::uuid[], ${column(({ digest }) => digest)}::text[],
        ${column((call) => JSON.stringify(call.arguments))}::text[], ${column(({ timeoutMs }) => timeoutMs)}::integer[],
        ${column((call) => call.heartbeatTimeoutMs ?? null)}::integer[], ${column(({ runId }) => runId || null)}::text[],
        ${column(({ traceparent }) => traceparent)}::text[], ${column(({ requestId }) => requestId)}::text[],
        ${column(({ attempt }) => attempt - 1)}::integer[]
      ) a (call_id, key, request_hash, epoch, tool_id, digest, arguments, timeout_ms, heartbeat_timeout_ms, run_id,
           traceparent, request_id, attempt)
    ), open as (
      select from call where state in ('queued', 'dispatched') limit ${maxOpen}
    )
    insert into call (call_id, org_id, key, request_hash, epoch, tool_id, digest, arguments, timeout_ms,
                      heartbeat_timeout_ms, run_id, traceparent, request_id, attempt, state)
    select a.call_id, ${orgId}, a.key, a.request_hash, a.epoch, a.tool_id, a.digest, a.arguments::json,
           a.timeout_ms, a.heartbeat_timeout_ms, a.run_id, a.traceparent, a.request_id, a.attempt, 'queued'
      from asked a where not exists (select from call c where c.key = a.key)
     order by a.key limit greatest(0, ${maxOpen} - (select count(*) from open))
    on conflict (org_id, key) do nothing
    returning call_id`;
}

interface KeyRow {
  readonly call_id: string;
  readonly request_hash: Buffer | null;
  readonly epoch: bigint;
  readonly state: CallState;
  readonly progress: Progress | null;
  readonly worker_id: string | null;
  readonly was_dispatched: boolean;
  readonly void_failures: number;
  /** Null for a call without an outcome. */
  readonly has_failed: boolean | null;
}

/** The call that has a key, locked. */
export async function lockKey(transaction: QueryExecutorProvider, key: string): Promise<KeyRow | undefined> {
  const { rows } = await sql<KeyRow>`
    select call_id, request_hash, epoch, state, progress, worker_id, dispatched_at is not null as was_dispatched,
           void_failures, outcome->>'type' = 'error' as has_failed
      from call where key = ${key} for update`.execute(transaction);
  return rows[0];
}

/**
 * Joins the call that has a key. One that lapsed, or failed and is void, is
 * queued again; its epoch is raised to the one given.
 *
 * @returns the call's id
 * @throws AppError EPOCH_STALE, IDEMPOTENCY_KEY_REUSED; LIMIT_EXCEEDED if nobody has the key
 */
export async function joinKnown(
  transaction: QueryExecutorProvider,
  call: BeginCall,
  announce: Announce,
): Promise<string> {
  const found = await lockKey(transaction, call.key);
  if (found === undefined) throw limitExceeded(call.orgId, "tool_calls", call.maxOpen, { retryAfterMs: 1_000 });
  assertNotStale(call.epoch, found.epoch);
  if (found.request_hash !== null && !found.request_hash.equals(call.requestHash)) {
    throw new AppError("IDEMPOTENCY_KEY_REUSED", "the idempotency key was used for another call");
  }
  const isVoid = found.state === "ended" && found.has_failed && call.afterFailures > found.void_failures;
  if (isVoid) await forgetOutcome(transaction, found.call_id, call);
  const isAgain = found.state === "lapsed" || isVoid;
  if (isAgain || call.epoch > found.epoch) {
    await sql`update call set epoch = ${call.epoch},
        state = case when ${isAgain} then 'queued' else state end,
        outcome = case when ${isAgain} then null else outcome end,
        ended_at = case when ${isAgain} then null else ended_at end,
        timeout_ms = case when ${isAgain} then ${call.timeoutMs} else timeout_ms end,
        heartbeat_timeout_ms = case when ${isAgain} then ${call.heartbeatTimeoutMs ?? null}
                                    else heartbeat_timeout_ms end,
        queued_at = case when ${isAgain} then clock_timestamp() else queued_at end,
        attempt = case when ${isAgain} then greatest(attempt, ${call.attempt - 1}) else attempt end
      where call_id = ${found.call_id}`.execute(transaction);
  }
  if (isAgain) announce(callTopic(found.call_id));
  return found.call_id;
}

/** Refuses who has been replaced: a key's epoch never falls. */
export function assertNotStale(epoch: bigint, seen: bigint): void {
  if (epoch < seen) throw new AppError("EPOCH_STALE", "the key was used with a higher epoch");
}

/**
 * Makes a call that failed one that was not handed out yet, with the same key.
 * Its worker's place is free: it reported the failure, or was told to stop.
 */
async function forgetOutcome(transaction: QueryExecutorProvider, callId: string, call: BeginCall): Promise<void> {
  await sql`delete from call_output where call_id = ${callId}`.execute(transaction);
  await sql`update call set void_failures = ${call.afterFailures}, request_hash = ${Buffer.from(call.requestHash)},
      tool_id = ${call.toolId}, digest = ${call.digest}, arguments = ${JSON.stringify(call.arguments)}::json,
      timeout_ms = ${call.timeoutMs}, heartbeat_timeout_ms = ${call.heartbeatTimeoutMs ?? null},
      run_id = ${call.runId || null}, traceparent = ${call.traceparent}, request_id = ${call.requestId},
      losses = 0, handout_id = null, worker_id = null, worker_name = '', released = true, dispatched_at = null,
      deadline_at = null, cancel_at = null, cancel_deadline = null, heard_at = null, progress = null,
      report_hash = null, report_seq = 0, output_count = 0, output_bytes = 0
    where call_id = ${callId}`.execute(transaction);
}
