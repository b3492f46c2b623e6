import type { JsonObject } from "@bufbuild/protobuf";
import { type QueryExecutorProvider, sql } from "kysely";
import { AppError } from "../../runtime/errors/app-error.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { cancelled, workerLimits } from "../domain/call.ts";
import { keyOf } from "../domain/call-key.ts";
import { limitExceeded } from "../domain/limit.ts";
import { fillWorker } from "./fill-workers.ts";
import { loseCalls } from "./lose-calls.ts";
import { registerDefinition } from "./postgres-tool-store.ts";
import type { ToolsSchema } from "./schema.ts";
import { type Announce, callTopic, type WakeUps, workerTopic } from "./wake-ups.ts";
import type { ConnectWorker, HandedCall, WorkerIdentity, WorkerNews, WorkerStore } from "./worker-store.ts";

const lease = sql`clock_timestamp() + make_interval(secs => ${workerLimits.leaseMs / 1_000})`;

/** Registrations ended in one go. */
const maxExpired = 100;

/** The workers in PostgreSQL. */
export class PostgresWorkerStore implements WorkerStore {
  readonly #database: Database<ToolsSchema>;
  readonly #wakeUps: WakeUps;

  constructor(database: Database<ToolsSchema>, wakeUps: WakeUps) {
    this.#database = database;
    this.#wakeUps = wakeUps;
  }

  async connect(worker: ConnectWorker): Promise<{ readonly workerId: string }> {
    const { orgId, streamId } = worker;
    return this.#wakeUps.asOrg(this.#database, orgId, async (transaction, announce) => {
      const workerId = worker.workerId ?? toUuid("wrk", newId("wrk"));
      const isNew = worker.workerId === undefined;
      if (isNew) await insertWorker(transaction, workerId, worker);
      else await continueWorker(transaction, workerId, worker);
      const served: { toolId: string; digest: string }[] = [];
      for (const definition of worker.definitions) {
        const options = { mayAdd: worker.mayAddDefinitions, inForce: isNew, limits: worker.limits };
        const { toolId } = await registerDefinition(transaction, orgId, definition, options);
        served.push({ toolId, digest: definition.digest });
      }
      await sql`delete from worker_tool where worker_id = ${workerId}`.execute(transaction);
      await sql`insert into worker_tool (worker_id, org_id, tool_id, digest)
        select ${workerId}, ${orgId}, tool_id, digest
          from unnest(${served.map(({ toolId }) => toolId)}::uuid[], ${served.map(({ digest }) => digest)}::text[])
            as served (tool_id, digest)`.execute(transaction);
      if (!isNew) {
        await hear(transaction, workerId, worker.running);
        await releaseEnded(transaction, workerId, worker.running, sql`true`, announce);
      }
      // A stream that is there, on whatever replica, sees that it was superseded by this one.
      announce(workerTopic(workerId));
      return { workerId, streamId };
    });
  }

  async disconnect(workerId: string, streamId: string): Promise<void> {
    // A drained worker without calls has left; waiting for its lease would only delay what follows from that.
    await sql`update worker set
        stream_id = null,
        lease_until = case when draining and not exists (
          select from call where call.worker_id = worker.worker_id and not released
        ) then clock_timestamp() else lease_until end
      where worker_id = ${workerId} and stream_id = ${streamId}`.execute(this.#database.engine);
  }

  async heartbeat(worker: WorkerIdentity, running: readonly string[]): Promise<readonly string[]> {
    const { orgId, workerId } = worker;
    return this.#wakeUps.asOrg(this.#database, orgId, async (transaction, announce) => {
      await touch(transaction, worker, sql`lease_until = ${lease}`);
      await hear(transaction, workerId, running);
      const old = sql`dispatched_at < clock_timestamp() - make_interval(secs => ${workerLimits.leaseMs / 1_000})`;
      await releaseEnded(transaction, workerId, running, old, announce);
      const unnamed = sql`worker_id = ${workerId} and not handout_id = any(${[...running]}::uuid[]) and ${old}`;
      const stopped = await sql<{ call_id: string }>`update call set
          state = 'ended', outcome = ${JSON.stringify(cancelled)}::json, progress = 'PARTIAL', released = true,
          ended_at = clock_timestamp()
        where state = 'dispatched' and cancel_at is not null and ${unnamed}
        returning call_id`.execute(transaction);
      for (const { call_id } of stopped.rows) announce(callTopic(call_id));
      for (const callId of await loseCalls(transaction, unnamed)) announce(callTopic(callId));
      const { rows } = await sql<{ handout_id: string }>`
        select handout_id from call
         where worker_id = ${workerId} and handout_id = any(${[...running]}::uuid[])
           and state = 'dispatched' and cancel_at is null`.execute(transaction);
      const wanted = new Set(rows.map((row) => row.handout_id));
      return running.filter((handoutId) => !wanted.has(handoutId));
    });
  }

  async drain(worker: WorkerIdentity): Promise<void> {
    await this.#wakeUps.asOrg(this.#database, worker.orgId, async (transaction, announce) => {
      await touch(transaction, worker, sql`draining = true`);
      announce(workerTopic(worker.workerId));
    });
  }

  async news(workerId: string, streamId: string, sent: readonly string[]): Promise<WorkerNews> {
    const { rows } = await sql<StreamRow & (NewsRow | { readonly call_id: null })>`/* prepared: tools_news */
      select w.stream_id, w.draining, c.*
        from worker w left join lateral (
          select call_id, handout_id, tool_id, digest, key, attempt, deadline_at, heartbeat_timeout_ms, run_id,
                 traceparent, request_id, dispatched_at,
                 handout_id = any(${sent}::uuid[]) as is_sent,
                 cancel_at is not null or state = 'ended' as should_stop,
                 case when handout_id = any(${sent}::uuid[]) then null else arguments end as arguments
            from call where call.worker_id = w.worker_id and not released
        ) c on true
       where w.worker_id = ${workerId} and w.lease_until > clock_timestamp()
       order by c.dispatched_at, c.call_id`.execute(this.#database.engine);
    const [worker] = rows;
    if (worker === undefined) return { type: "gone" };
    if (worker.stream_id !== streamId) return { type: "superseded" };
    const calls = rows.filter((row) => row.call_id !== null);
    return {
      type: "calls",
      draining: worker.draining,
      handed: calls.filter((row) => !row.is_sent && !row.should_stop).map(toHandedCall),
      cancelled: calls.filter((row) => row.is_sent && row.should_stop).map((row) => row.handout_id),
      held: calls.map((row) => row.handout_id),
      unsent: calls.filter((row) => !row.is_sent && row.should_stop).map((row) => row.handout_id),
    };
  }

  fill(workerId: string): Promise<number> {
    return fillWorker(this.#database.engine, workerId, this.#wakeUps);
  }

  async endExpired(): Promise<void> {
    await this.#wakeUps.asEngine(this.#database, async (transaction, announce) => {
      const { rows } = await sql<{ worker_id: string }>`
        select worker_id from worker where lease_until < clock_timestamp()
         order by lease_until limit ${maxExpired} for update skip locked`.execute(transaction);
      const workerIds = rows.map((row) => row.worker_id);
      if (workerIds.length === 0) return;
      const theirs = sql`worker_id = any(${workerIds}::uuid[])`;
      for (const callId of await loseCalls(transaction, theirs)) announce(callTopic(callId));
      await sql`update call set released = true where not released and ${theirs}`.execute(transaction);
      await fallBack(transaction, workerIds);
      await sql`delete from worker where ${theirs}`.execute(transaction);
      for (const workerId of workerIds) announce(workerTopic(workerId));
    });
  }
}

interface StreamRow {
  readonly stream_id: string | null;
  readonly draining: boolean;
}

interface NewsRow {
  readonly call_id: string;
  readonly handout_id: string;
  readonly tool_id: string;
  readonly digest: string;
  readonly arguments: JsonObject | null;
  readonly key: string;
  readonly attempt: number;
  readonly deadline_at: Date;
  readonly heartbeat_timeout_ms: number | null;
  readonly run_id: string | null;
  readonly traceparent: string;
  readonly request_id: string;
  readonly is_sent: boolean;
  readonly should_stop: boolean;
}

function toHandedCall(row: NewsRow): HandedCall {
  return {
    callId: row.call_id,
    handoutId: row.handout_id,
    toolId: row.tool_id,
    digest: row.digest,
    arguments: row.arguments ?? {},
    key: keyOf(row.key),
    attempt: row.attempt,
    deadline: row.deadline_at,
    heartbeatTimeoutMs: row.heartbeat_timeout_ms ?? undefined,
    runId: row.run_id ?? "",
    traceparent: row.traceparent,
    requestId: row.request_id,
  };
}

async function insertWorker(
  transaction: QueryExecutorProvider,
  workerId: string,
  worker: ConnectWorker,
): Promise<void> {
  const { rows } = await sql<{ count: bigint }>`select count(*) from worker`.execute(transaction);
  const { orgId, maxWorkers } = worker;
  if (Number(rows[0]?.count ?? 0n) >= maxWorkers) throw limitExceeded(orgId, "workers", maxWorkers);
  await sql`insert into worker (worker_id, org_id, subject, name, concurrency, stream_id, lease_until)
    values (${workerId}, ${worker.orgId}, ${worker.subject}, ${worker.name}, ${worker.concurrency}, ${worker.streamId},
            ${lease})`.execute(transaction);
}

async function continueWorker(
  transaction: QueryExecutorProvider,
  workerId: string,
  worker: ConnectWorker,
): Promise<void> {
  const identity = { orgId: worker.orgId, workerId, subject: worker.subject };
  await touch(
    transaction,
    identity,
    sql`stream_id = ${worker.streamId}, name = ${worker.name}, concurrency = ${worker.concurrency},
        draining = false, lease_until = ${lease}`,
  );
}

/** Changes a worker that is registered, is the principal's, and has not outlived its lease. */
async function touch(
  transaction: QueryExecutorProvider,
  worker: WorkerIdentity,
  change: ReturnType<typeof sql>,
): Promise<void> {
  const { rows } = await sql`update worker set ${change}
    where worker_id = ${worker.workerId} and subject = ${worker.subject} and lease_until > clock_timestamp()
    returning 1`.execute(transaction);
  if (rows.length === 0) throw new AppError("WORKER_NOT_FOUND", "no such worker, or its registration ended");
}

/** Notes that the worker still runs calls whose silence is timed. */
async function hear(transaction: QueryExecutorProvider, workerId: string, running: readonly string[]): Promise<void> {
  if (running.length === 0) return;
  await sql`update call set heard_at = clock_timestamp()
    where worker_id = ${workerId} and state = 'dispatched' and heartbeat_timeout_ms is not null
      and handout_id = any(${[...running]}::uuid[])`.execute(transaction);
}

/** Frees the places of ended calls that the worker does not run any more: their handlers have stopped. */
async function releaseEnded(
  transaction: QueryExecutorProvider,
  workerId: string,
  running: readonly string[],
  which: ReturnType<typeof sql>,
  announce: Announce,
): Promise<void> {
  const { rows } = await sql<{ call_id: string }>`update call set
      released = true, progress = case when progress = 'MAY_STILL_RUN' then 'PARTIAL' else progress end
    where worker_id = ${workerId} and state = 'ended' and not released
      and not handout_id = any(${[...running]}::uuid[]) and ${which}
    returning call_id`.execute(transaction);
  for (const { call_id } of rows) announce(callTopic(call_id));
}

/**
 * When the last worker of a tool's definition in force leaves, and workers of
 * another definition are there, the newest of those is in force again: a
 * roll-back must not leave the tool without workers.
 */
async function fallBack(transaction: QueryExecutorProvider, leaving: readonly string[]): Promise<void> {
  await sql`
    with live as (
      select wt.tool_id, wt.digest from worker_tool wt join worker w using (worker_id)
       where w.lease_until > clock_timestamp() and not w.draining and w.stream_id is not null
         and not w.worker_id = any(${[...leaving]}::uuid[])
    ), left_behind as (
      select distinct t.tool_id from tool t join worker_tool wt on wt.tool_id = t.tool_id and wt.digest = t.digest
       where wt.worker_id = any(${[...leaving]}::uuid[])
         and not exists (select from live where live.tool_id = t.tool_id and live.digest = t.digest)
    ), next as (
      select distinct on (d.tool_id) d.tool_id, d.digest from tool_definition d
        join live using (tool_id, digest)
       where d.tool_id in (select tool_id from left_behind)
       order by d.tool_id, d.created_at desc
    )
    update tool set digest = next.digest, updated_at = clock_timestamp() from next where tool.tool_id = next.tool_id`.execute(
    transaction,
  );
}
