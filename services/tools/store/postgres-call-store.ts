import { type QueryExecutorProvider, type RawBuilder, sql } from "kysely";
import { AppError } from "../../runtime/errors/app-error.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import {
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
import { assertNotStale, insertNew, joinKnown, lockKey } from "./begin-calls.ts";
import type { BeginCall, CallStore, CallView, Report } from "./call-store.ts";
import { type EndReport, endAlone, endHeld, lockHandout } from "./end-calls.ts";
import { dispatchCalls, fillWorker, publishGiven } from "./fill-workers.ts";
import { GroupCommit } from "./group-commit.ts";
import { type ReadCall, readCalls } from "./read-calls.ts";
import type { ToolsSchema } from "./schema.ts";
import { silentAt } from "./silence.ts";
import { type Announce, callTopic, type WakeUps, workerTopic } from "./wake-ups.ts";

// Invariants:
// 1. A call is recorded before anything of it happens.
// 2. Its outcome is written once; what comes later is refused.
// 3. A worker never holds more calls than it has places (fill_worker), and a
//    call that ended holds its place until its worker says that it stopped.
// 4. A key's epoch never falls.

/** Calls settled in one go. */
const maxSettled = 500;
/** Rounds of one dispatch; what is left then waits for the next sweep. */
const maxRounds = 100;
/** Definitions whose queues one sweep looks at. */
const maxQueues = 100;

/** A worker that takes calls, as `w`. */
const takesCalls = sql`w.stream_id is not null and not w.draining and w.lease_until > clock_timestamp()`;

const epochMax = 2n ** 63n - 1n;

/** The calls in PostgreSQL. */
export class PostgresCallStore implements CallStore {
  readonly #database: Database<ToolsSchema>;
  readonly #wakeUps: WakeUps;
  readonly #workerWaitMs: number;
  readonly #beginnings = new GroupCommit<BeginCall, string | undefined>((orgId, calls) => this.#beginNew(orgId, calls));
  readonly #readings = new GroupCommit<ReadCall, CallView | undefined>((orgId, calls) =>
    readCalls(this.#database, orgId, calls, this.#workerWaitMs),
  );
  readonly #endings = new GroupCommit<EndReport & { readonly outcome: Outcome }, boolean>((orgId, reports) =>
    this.#endHeld(orgId, reports),
  );

  /** @param workerWaitMs how long a call waits for a worker that serves its definition */
  constructor(database: Database<ToolsSchema>, wakeUps: WakeUps, workerWaitMs: number) {
    this.#database = database;
    this.#wakeUps = wakeUps;
    this.#workerWaitMs = workerWaitMs;
  }

  async begin(call: BeginCall): Promise<string> {
    assertEpoch(call.epoch);
    const begun = await this.#beginnings.add(call.orgId, call);
    if (begun !== undefined) return begun;
    return this.#wakeUps.asOrg(this.#database, call.orgId, (transaction, announce) =>
      joinKnown(transaction, call, announce),
    );
  }

  /** Records what is new and hands it out; `undefined` for a call whose key is known, or for which there is no room. */
  async #beginNew(orgId: string, calls: readonly BeginCall[]): Promise<readonly (string | undefined)[]> {
    const asked = calls.map((call) => ({ callId: toUuid("call", newId("call")), call }));
    const { engine } = this.#database;
    const [inserted, given] = await this.#database.batchAsOrg(orgId, [
      insertNew(orgId, asked).compile(engine),
      dispatchCalls(calls, this.#wakeUps.replicaId).compile(engine),
    ]);
    publishGiven(this.#wakeUps, given);
    const ids = new Set(inserted.map((row) => row.call_id));
    return asked.map(({ callId }) => (ids.has(callId) ? callId : undefined));
  }

  async dispatch(callId: string): Promise<void> {
    const { rows: definitions } = await sql<{ tool_id: string; digest: string }>`
      select tool_id, digest from call where call_id = ${callId} and state = 'queued'`.execute(this.#database.engine);
    const asked = definitions.map((row) => ({ toolId: row.tool_id, digest: row.digest }));
    // What a worker was given may have been older calls of its other tools: each round leaves less.
    for (let round = 0; asked.length > 0 && round < maxRounds; round++) {
      const { rows: given } = await dispatchCalls(asked, this.#wakeUps.replicaId).execute(this.#database.engine);
      publishGiven(this.#wakeUps, given);
      if (given.length === 0) return;
    }
  }

  async read(orgId: string, callId: string, afterPosition: number): Promise<CallView> {
    const view = await this.#readings.add(orgId, { callId, afterPosition });
    if (view === undefined) throw new AppError("CALL_NOT_FOUND", "no such call");
    return view;
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
    const { orgId, workerId } = report;
    if (outcome !== "cancelled" && (await this.#endings.add(orgId, { report, outcome, reportHash }))) return;
    try {
      const isTaken = await this.#wakeUps.asOrg(this.#database, orgId, (transaction, announce) =>
        endAlone(transaction, { report, outcome, reportHash }, announce),
      );
      if (!isTaken) throw noSuchCall();
    } finally {
      // Also after a late report, which frees its place.
      await fillWorker(this.#database.engine, workerId, this.#wakeUps);
    }
  }

  /** Ends calls that are still their worker's. Says of each report whether it did. */
  async #endHeld(orgId: string, reports: readonly (EndReport & { readonly outcome: Outcome })[]): Promise<boolean[]> {
    const { engine } = this.#database;
    const statement = endHeld(reports, this.#wakeUps.replicaId).compile(engine);
    const [rows] = await this.#database.batchAsOrg(orgId, [statement]);
    for (const { ended_call_id: callId } of rows) if (callId !== null) this.#wakeUps.publish(callTopic(callId));
    publishGiven(this.#wakeUps, rows);
    const ended = new Set(rows.map((row) => row.ended_handout_id));
    // Of two reports of a hand-out in one group, the other is asked about again.
    return reports.map(({ report }) => ended.delete(report.handoutId));
  }

  async sweep(): Promise<void> {
    await this.#settle(sql`true`);
    const { rows } = await sql<{ call_id: string }>`
      select distinct on (tool_id, digest) call_id from call where state = 'queued' limit ${maxQueues}`.execute(
      this.#database.engine,
    );
    for (const { call_id: callId } of rows) await this.dispatch(callId);
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

function ms(value: number | RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`make_interval(secs => ${value} / 1000.0)`;
}

function assertEpoch(epoch: bigint): void {
  if (epoch <= epochMax) return;
  throw new AppError("INVALID_ARGUMENT", "epoch: must be less than 2^63", {
    violations: [{ field: "epoch", message: "must be less than 2^63", rule: "range" }],
  });
}

function noSuchCall(): AppError {
  return new AppError("CALL_NOT_FOUND", "no such call, or it was not given to this worker");
}
