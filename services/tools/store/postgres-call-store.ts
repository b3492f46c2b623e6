import { type QueryExecutorProvider, type RawBuilder, sql } from "kysely";
import { AppError } from "../../runtime/errors/app-error.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import {
  type CallState,
  callLimits,
  cancelled,
  heartbeatLost,
  type Outcome,
  outputTruncated,
  overdue,
  type Progress,
  unplaced,
  unserved,
} from "../domain/call.ts";
import { limitExceeded } from "../domain/limit.ts";
import type { BeginCall, CallStore, CallView, Report } from "./call-store.ts";
import { loseCalls } from "./lose-calls.ts";
import type { ToolsSchema } from "./schema.ts";
import { type Announce, callTopic, type WakeUps, workerTopic } from "./wake-ups.ts";

// Invariants:
// 1. A call is recorded before anything of it happens.
// 2. Its outcome is written once; what comes later is refused.
// 3. A worker never holds more calls than it has places (fill_worker), and a
//    call that ended holds its place until its worker says that it stopped.
// 4. A key's epoch never falls.

/** Parts of output read at once. */
const maxOutputParts = 64;
/** Calls settled in one go. */
const maxSettled = 500;
/** Calls handed out by one dispatch. */
const maxRounds = 10_000;
/** Definitions whose queues one sweep looks at. */
const maxQueues = 100;

/** A worker that takes calls, as `w`. */
const takesCalls = sql`w.stream_id is not null and not w.draining and w.lease_until > clock_timestamp()`;

/** When the worker of a dispatched call has said nothing of it for too long; null for never. */
const silentAt = sql`greatest(dispatched_at, heard_at) + make_interval(secs => heartbeat_timeout_ms / 1000.0)`;

const epochMax = 2n ** 63n - 1n;

/** The calls in PostgreSQL. */
export class PostgresCallStore implements CallStore {
  readonly #database: Database<ToolsSchema>;
  readonly #wakeUps: WakeUps;
  readonly #workerWaitMs: number;

  /** @param workerWaitMs how long a call waits for a worker that serves its definition */
  constructor(database: Database<ToolsSchema>, wakeUps: WakeUps, workerWaitMs: number) {
    this.#database = database;
    this.#wakeUps = wakeUps;
    this.#workerWaitMs = workerWaitMs;
  }

  async begin(call: BeginCall): Promise<{ readonly callId: string; readonly state: CallState }> {
    assertEpoch(call.epoch);
    return this.#wakeUps.asOrg(this.#database, call.orgId, async (transaction, announce) => {
      const callId = toUuid("call", newId("call"));
      const { rows: inserted } = await sql`
        insert into call (call_id, org_id, key, request_hash, epoch, tool_id, digest, arguments, timeout_ms,
                          heartbeat_timeout_ms, run_id, traceparent, request_id, state, attempt)
        values (${callId}, ${call.orgId}, ${call.key}, ${Buffer.from(call.requestHash)}, ${call.epoch}, ${call.toolId},
                ${call.digest}, ${JSON.stringify(call.arguments)}::json, ${call.timeoutMs},
                ${call.heartbeatTimeoutMs ?? null}, ${call.runId || null}, ${call.traceparent}, ${call.requestId},
                'queued', ${call.attempt - 1})
        on conflict (org_id, key) do nothing returning 1`.execute(transaction);
      if (inserted.length > 0) {
        await assertRoom(transaction, call);
        return { callId, state: "queued" };
      }
      const found = await lockKey(transaction, call.key);
      if (found === undefined) throw new Error("a call was neither made nor found");
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
      return { callId: found.call_id, state: isAgain ? "queued" : found.state };
    });
  }

  async dispatch(callId: string): Promise<void> {
    // Each round hands out the oldest call of somebody, or finds that another
    // replica did: what is queued becomes less, so there is an end.
    for (let round = 0; round < maxRounds; round++) {
      const { rows } = await sql<{ worker_id: string }>`
        select worker_id from (
          select w.worker_id, w.concurrency, w.assigned_at,
                 (select count(*) from call held where held.worker_id = w.worker_id and not held.released) as held
            from call c join worker_tool t on t.tool_id = c.tool_id and t.digest = c.digest
            join worker w on w.worker_id = t.worker_id
           where c.call_id = ${callId} and c.state = 'queued' and ${takesCalls}
        ) candidate
        where held < concurrency
        order by held::float8 / concurrency, assigned_at, worker_id limit 1`.execute(this.#database.engine);
      const workerId = rows[0]?.worker_id;
      if (workerId === undefined) return;
      const { rows: given } = await sql<{ call_id: string }>`
        select call_id from fill_worker(${workerId}, 1, ${this.#wakeUps.replicaId}) call_id`.execute(
        this.#database.engine,
      );
      if (given.length > 0) this.#wakeUps.publish(workerTopic(workerId));
      for (const { call_id } of given) this.#wakeUps.publish(callTopic(call_id));
    }
  }

  async read(orgId: string, callId: string, afterPosition: number): Promise<CallView> {
    return this.#database.asOrg(orgId, async (transaction) => {
      const { rows } = await sql<ViewRow>`
        select state, attempt, worker_name, outcome, progress, output_count,
          1000 * extract(epoch from least(
            case state
              when 'dispatched' then least(deadline_at, cancel_deadline, ${silentAt})
              when 'queued' then case
                when queued_at + ${ms(this.#workerWaitMs)} > clock_timestamp() then queued_at + ${ms(this.#workerWaitMs)}
                else queued_at + ${ms(sql`timeout_ms`)} end
            end,
            clock_timestamp() + interval '1 minute'
          ) - clock_timestamp())::float8 as due_in_ms
          from call where call_id = ${callId}`.execute(transaction);
      const [row] = rows;
      if (row === undefined) throw new AppError("CALL_NOT_FOUND", "no such call");
      const output = row.output_count > afterPosition ? await readOutput(transaction, callId, afterPosition) : [];
      const position = output.at(-1)?.position ?? afterPosition;
      return {
        state: row.state,
        attempt: row.attempt,
        workerName: row.worker_name,
        outcome: row.outcome ?? undefined,
        progress: row.progress ?? undefined,
        output: output.map(({ text }) => text.toString("utf8")),
        position,
        hasMore: row.output_count > position,
        dueInMs: Math.max(0, row.due_in_ms),
      };
    });
  }

  async cancel(
    orgId: string,
    key: string,
    epoch: bigint,
    graceMs: number,
  ): Promise<{ readonly callId: string; readonly progress: Progress | undefined }> {
    assertEpoch(epoch);
    return this.#wakeUps.asOrg(this.#database, orgId, async (transaction, announce) => {
      await sql`
        insert into call (call_id, org_id, key, epoch, timeout_ms, traceparent, request_id, state, attempt, outcome,
                          progress, ended_at)
        values (${toUuid("call", newId("call"))}, ${orgId}, ${key}, ${epoch}, 0, '', '', 'ended', 0,
                ${JSON.stringify(cancelled)}::json, 'NOT_STARTED', clock_timestamp())
        on conflict (org_id, key) do nothing`.execute(transaction);
      const found = await lockKey(transaction, key);
      if (found === undefined) throw new Error("a call was neither made nor found");
      assertNotStale(epoch, found.epoch);
      const callId = found.call_id;
      if (found.state === "dispatched") {
        await sql`update call set epoch = ${epoch}, cancel_at = coalesce(cancel_at, clock_timestamp()),
            cancel_deadline = greatest(cancel_deadline, clock_timestamp() + ${ms(graceMs)})
          where call_id = ${callId}`.execute(transaction);
        announce(callTopic(callId));
        if (found.worker_id !== null) announce(workerTopic(found.worker_id));
        return { callId, progress: undefined };
      }
      if (found.state === "ended") return { callId, progress: found.progress ?? "DONE" };
      // Nobody runs it now; a worker that was lost may.
      const progress: Progress = found.was_dispatched ? "MAY_STILL_RUN" : "NOT_STARTED";
      await sql`update call set epoch = ${epoch}, state = 'ended', outcome = ${JSON.stringify(cancelled)}::json,
          progress = ${progress}, ended_at = clock_timestamp()
        where call_id = ${callId}`.execute(transaction);
      announce(callTopic(callId));
      return { callId, progress };
    });
  }

  async endCancelled(orgId: string, callId: string): Promise<Progress> {
    return this.#wakeUps.asOrg(this.#database, orgId, async (transaction, announce) => {
      const { rows: ended } = await sql`update call set
          state = 'ended', outcome = ${JSON.stringify(cancelled)}::json, progress = 'MAY_STILL_RUN',
          ended_at = clock_timestamp()
        where call_id = ${callId} and state <> 'ended' returning 1`.execute(transaction);
      if (ended.length > 0) announce(callTopic(callId));
      const { rows } = await sql<{ progress: Progress | null }>`
        select progress from call where call_id = ${callId}`.execute(transaction);
      return rows[0]?.progress ?? "DONE";
    });
  }

  async endUnsent(workerId: string, handoutId: string): Promise<void> {
    await this.#wakeUps.asEngine(this.#database, async (transaction, announce) => {
      const { rows } = await sql<{ call_id: string }>`update call set
          state = 'ended', released = true, ended_at = coalesce(ended_at, clock_timestamp()),
          outcome = coalesce(outcome::text, ${JSON.stringify(cancelled)})::json,
          progress = case when losses > 0 then 'MAY_STILL_RUN' else 'NOT_STARTED' end
        where handout_id = ${handoutId} and worker_id = ${workerId} and not released
          and (cancel_at is not null or state = 'ended')
        returning call_id`.execute(transaction);
      for (const { call_id } of rows) announce(callTopic(call_id));
    });
  }

  async appendOutput(report: Report, seq: bigint, text: string): Promise<boolean> {
    return this.#wakeUps.asOrg(this.#database, report.orgId, async (transaction, announce) => {
      const call = await lockHandout(transaction, report);
      if (call === undefined || call.state !== "dispatched") throw noSuchCall();
      const shouldStop = call.cancel_at !== null;
      if (seq <= call.report_seq) return shouldStop;
      if (seq !== call.report_seq + 1n) {
        throw new AppError("INVALID_ARGUMENT", "seq: a report was left out", {
          violations: [{ field: "seq", message: `must be ${call.report_seq + 1n}`, rule: "seq" }],
        });
      }
      const bytes = Buffer.from(text);
      // One byte more than is kept stands for output that was cut off.
      const isCut = call.output_bytes > callLimits.maxOutputBytes;
      const fits = call.output_bytes + bytes.byteLength <= callLimits.maxOutputBytes;
      const outputBytes = fits ? call.output_bytes + bytes.byteLength : callLimits.maxOutputBytes + 1;
      const kept = isCut || bytes.byteLength === 0 ? undefined : fits ? bytes : Buffer.from(outputTruncated);
      if (kept !== undefined) {
        await sql`insert into call_output (call_id, org_id, position, text)
          values (${call.call_id}, ${report.orgId}, ${call.output_count + 1}, ${kept})`.execute(transaction);
        announce(callTopic(call.call_id));
      }
      await sql`update call set heard_at = clock_timestamp(), report_seq = ${seq}, output_count = output_count + ${kept === undefined ? 0 : 1},
          output_bytes = ${outputBytes}
        where call_id = ${call.call_id}`.execute(transaction);
      return shouldStop;
    });
  }

  async definitionOf(report: Report): Promise<{ readonly toolId: string; readonly digest: string }> {
    return this.#database.asOrg(report.orgId, async (transaction) => {
      const { rows } = await sql<{ tool_id: string; digest: string }>`
        select tool_id, digest from call where handout_id = ${report.handoutId} and worker_id = ${report.workerId}`.execute(
        transaction,
      );
      const [row] = rows;
      if (row === undefined) throw noSuchCall();
      return { toolId: row.tool_id, digest: row.digest };
    });
  }

  async end(report: Report, outcome: Outcome | "cancelled", reportHash: Uint8Array): Promise<void> {
    const isTaken = await this.#wakeUps.asOrg(this.#database, report.orgId, async (transaction, announce) => {
      const call = await lockHandout(transaction, report);
      if (call === undefined) return false;
      if (call.state === "ended") {
        if (call.released) return call.report_hash?.equals(reportHash) === true;
        // It ended without its handler, which has stopped now.
        await sql`update call set released = true,
            progress = case when progress = 'MAY_STILL_RUN' then 'PARTIAL' else progress end
          where call_id = ${call.call_id}`.execute(transaction);
        announce(callTopic(call.call_id));
        return false;
      }
      if (outcome === "cancelled" && call.cancel_at === null) {
        // The worker gave it back, for example because it was stopped itself.
        await loseCalls(transaction, sql`call_id = ${call.call_id}`);
      } else {
        const stored = outcome === "cancelled" ? cancelled : outcome;
        await sql`update call set
            state = 'ended', released = true, outcome = ${JSON.stringify(stored)}::json,
            progress = ${outcome === "cancelled" ? "PARTIAL" : "DONE"}, report_hash = ${Buffer.from(reportHash)},
            ended_at = clock_timestamp()
          where call_id = ${call.call_id}`.execute(transaction);
      }
      announce(callTopic(call.call_id));
      return true;
    });
    if (!isTaken) throw noSuchCall();
  }

  async sweep(): Promise<void> {
    await this.#settle(sql`true`);
    const { rows } = await sql<{ call_id: string }>`
      select distinct on (tool_id, digest) call_id from call where state = 'queued' limit ${maxQueues}`.execute(
      this.#database.engine,
    );
    for (const { call_id } of rows) await this.dispatch(call_id);
  }

  async settle(callId: string): Promise<void> {
    await this.#settle(sql`c.call_id = ${callId}`);
  }

  async #settle(which: RawBuilder<unknown>): Promise<void> {
    await this.#wakeUps.asEngine(this.#database, async (transaction, announce) => {
      const late = sql`state = 'dispatched' and cancel_at is null and deadline_at < clock_timestamp()`;
      await endWhere(transaction, sql`${late} and ${which}`, overdue, "MAY_STILL_RUN", announce);
      const ungraceful = sql`state = 'dispatched' and cancel_deadline < clock_timestamp()`;
      await endWhere(transaction, sql`${ungraceful} and ${which}`, cancelled, "MAY_STILL_RUN", announce);
      await this.#lapseSilent(transaction, which, announce);
      const isServed = sql`exists (
        select from worker_tool t join worker w using (worker_id)
         where t.tool_id = c.tool_id and t.digest = c.digest and ${takesCalls})`;
      const waited = sql`state = 'queued' and queued_at + ${ms(this.#workerWaitMs)} < clock_timestamp()`;
      await lapseWhere(transaction, sql`${waited} and not ${isServed} and ${which}`, unserved, announce);
      const outwaited = sql`state = 'queued' and queued_at + ${ms(sql`timeout_ms`)} < clock_timestamp()`;
      await lapseWhere(transaction, sql`${outwaited} and ${which}`, unplaced, announce);
    });
  }

  /**
   * Takes calls from workers that said nothing of them for too long. Their
   * streams end with that: they get no calls until they connect again, when
   * they hear which of theirs to stop.
   */
  async #lapseSilent(
    transaction: QueryExecutorProvider,
    which: RawBuilder<unknown>,
    announce: Announce,
  ): Promise<void> {
    const isSilent = sql`c.state = 'dispatched' and c.cancel_at is null and ${silentAt} < clock_timestamp() and ${which}`;
    // Workers before calls, as heartbeats lock them; one that is being heard now is skipped.
    const { rows: workers } = await sql<{ worker_id: string }>`
      update worker set stream_id = null where worker_id in (
        select w.worker_id from worker w where exists (select from call c where c.worker_id = w.worker_id and ${isSilent})
         order by w.worker_id for update skip locked
      ) returning worker_id`.execute(transaction);
    if (workers.length === 0) return;
    const theirs = workers.map(({ worker_id }) => worker_id);
    const { rows: calls } = await sql<{ call_id: string }>`
      update call set state = 'lapsed', outcome = ${JSON.stringify(heartbeatLost)}::json, ended_at = clock_timestamp(),
        losses = losses + 1, worker_id = null, handout_id = null, released = true, deadline_at = null
      where call_id in (
        select c.call_id from call c where c.worker_id = any(${theirs}::uuid[]) and ${isSilent}
         limit ${maxSettled} for update skip locked
      ) returning call_id`.execute(transaction);
    for (const workerId of theirs) announce(workerTopic(workerId));
    for (const { call_id } of calls) announce(callTopic(call_id));
  }

  async prune(endedBefore: Date): Promise<number> {
    const { rows } = await sql`delete from call where call_id in (
        select call_id from call where state in ('ended', 'lapsed') and ended_at < ${endedBefore} and released
         order by ended_at limit 1000 for update skip locked
      ) returning 1`.execute(this.#database.engine);
    return rows.length;
  }
}

interface ViewRow {
  readonly state: CallState;
  readonly attempt: number;
  readonly worker_name: string;
  readonly outcome: Outcome | null;
  readonly progress: Progress | null;
  readonly output_count: number;
  readonly due_in_ms: number;
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

interface HandoutRow {
  readonly call_id: string;
  readonly state: CallState;
  readonly released: boolean;
  readonly cancel_at: Date | null;
  readonly report_hash: Buffer | null;
  readonly report_seq: bigint;
  readonly output_count: number;
  readonly output_bytes: number;
}

async function lockKey(transaction: QueryExecutorProvider, key: string): Promise<KeyRow | undefined> {
  const { rows } = await sql<KeyRow>`
    select call_id, request_hash, epoch, state, progress, worker_id, dispatched_at is not null as was_dispatched,
           void_failures, outcome->>'type' = 'error' as has_failed
      from call where key = ${key} for update`.execute(transaction);
  return rows[0];
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

/** The call that a hand-out is of, if it is the worker's and the worker the principal's. */
async function lockHandout(transaction: QueryExecutorProvider, report: Report): Promise<HandoutRow | undefined> {
  const { rows } = await sql<HandoutRow>`
    select call_id, state, released, cancel_at, report_hash, report_seq, output_count, output_bytes
      from call
     where handout_id = ${report.handoutId} and worker_id = ${report.workerId}
       and exists (select from worker w where w.worker_id = call.worker_id and w.subject = ${report.subject})
       for update`.execute(transaction);
  return rows[0];
}

async function readOutput(
  transaction: QueryExecutorProvider,
  callId: string,
  afterPosition: number,
): Promise<readonly { readonly position: number; readonly text: Buffer }[]> {
  const { rows } = await sql<{ position: number; text: Buffer }>`
    select position, text from call_output where call_id = ${callId} and position > ${afterPosition}
     order by position limit ${maxOutputParts}`.execute(transaction);
  return rows;
}

async function endWhere(
  transaction: QueryExecutorProvider,
  which: RawBuilder<unknown>,
  outcome: Outcome,
  progress: Progress,
  announce: Announce,
): Promise<void> {
  const { rows } = await sql<{ call_id: string; worker_id: string }>`
    update call set state = 'ended', outcome = ${JSON.stringify(outcome)}::json, progress = ${progress},
      ended_at = clock_timestamp()
    where call_id in (select c.call_id from call c where ${which} limit ${maxSettled} for update skip locked)
    returning call_id, worker_id`.execute(transaction);
  for (const { call_id, worker_id } of rows) {
    announce(callTopic(call_id));
    announce(workerTopic(worker_id));
  }
}

async function lapseWhere(
  transaction: QueryExecutorProvider,
  which: RawBuilder<unknown>,
  outcome: Outcome,
  announce: Announce,
): Promise<void> {
  const { rows } = await sql<{ call_id: string }>`
    update call set state = 'lapsed', outcome = ${JSON.stringify(outcome)}::json, ended_at = clock_timestamp()
    where call_id in (select c.call_id from call c where ${which} limit ${maxSettled} for update skip locked)
    returning call_id`.execute(transaction);
  for (const { call_id } of rows) announce(callTopic(call_id));
}

async function assertRoom(transaction: QueryExecutorProvider, { orgId, maxOpen }: BeginCall): Promise<void> {
  const { rows } = await sql<{ count: bigint }>`select count(*) from (
    select from call where state in ('queued', 'dispatched') limit ${maxOpen + 1}) open`.execute(transaction);
  if (Number(rows[0]?.count ?? 0n) > maxOpen)
    throw limitExceeded(orgId, "tool_calls", maxOpen, { retryAfterMs: 1_000 });
}

function ms(value: number | RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`make_interval(secs => ${value} / 1000.0)`;
}

function assertEpoch(epoch: bigint): void {
  if (epoch <= epochMax) return;
  throw new AppError("INVALID_ARGUMENT", "epoch: must be less than 2^63", {
    violations: [{ field: "epoch", message: "must be less than 2^63", rule: "range" }],
  });
}

function assertNotStale(epoch: bigint, seen: bigint): void {
  if (epoch < seen) throw new AppError("EPOCH_STALE", "the key was used with a higher epoch");
}

function noSuchCall(): AppError {
  return new AppError("CALL_NOT_FOUND", "no such call, or it was not given to this worker");
}
