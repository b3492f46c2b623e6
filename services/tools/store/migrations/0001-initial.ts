import { type Kysely, sql } from "kysely";
import { enableOrgSecurity, type Migration } from "../../../runtime/postgres/migrator.ts";

/** Tools, workers and calls, and the one function that hands calls to a worker. */
export const migration: Migration = {
  name: "0001-initial",
  destructive: false,
  up: async (db) => {
    await sql`create table tool (
      tool_id uuid primary key,
      org_id uuid not null,
      name text not null,
      digest text not null,
      created_at timestamptz not null default clock_timestamp(),
      updated_at timestamptz not null default clock_timestamp(),
      constraint tool_name unique (org_id, name)
    )`.execute(db);
    await sql`create table tool_definition (
      tool_id uuid not null references tool on delete cascade,
      org_id uuid not null,
      digest text not null,
      definition json not null,
      created_at timestamptz not null default clock_timestamp(),
      primary key (tool_id, digest)
    )`.execute(db);
    await sql`create table worker (
      worker_id uuid primary key,
      org_id uuid not null,
      subject text not null,
      name text not null,
      concurrency integer not null check (concurrency between 1 and 1000),
      stream_id uuid,
      draining boolean not null default false,
      lease_until timestamptz not null,
      assigned_at timestamptz not null default clock_timestamp()
    )`.execute(db);
    await sql`create index worker_lease on worker (lease_until)`.execute(db);
    await sql`create index worker_org on worker (org_id)`.execute(db);
    await sql`create table worker_tool (
      worker_id uuid not null references worker on delete cascade,
      org_id uuid not null,
      tool_id uuid not null,
      digest text not null,
      primary key (worker_id, tool_id)
    )`.execute(db);
    await sql`create index worker_tool_definition on worker_tool (tool_id, digest)`.execute(db);
    await sql`create table call (
      call_id uuid primary key,
      org_id uuid not null,
      key text not null,
      request_hash bytea,
      epoch bigint not null,
      tool_id uuid,
      digest text,
      arguments json,
      timeout_ms integer not null,
      run_id text,
      traceparent text not null,
      request_id text not null,
      state text not null check (state in ('queued', 'dispatched', 'ended', 'lapsed')),
      attempt integer not null,
      losses integer not null default 0,
      handout_id uuid unique,
      worker_id uuid,
      worker_name text not null default '',
      released boolean not null default true,
      queued_at timestamptz not null default clock_timestamp(),
      dispatched_at timestamptz,
      deadline_at timestamptz,
      cancel_at timestamptz,
      cancel_deadline timestamptz,
      outcome json,
      progress text check (progress in ('NOT_STARTED', 'PARTIAL', 'DONE', 'MAY_STILL_RUN')),
      report_hash bytea,
      report_seq bigint not null default 0,
      output_count integer not null default 0,
      output_bytes integer not null default 0,
      ended_at timestamptz,
      constraint call_key unique (org_id, key),
      check (state <> 'dispatched' or (handout_id is not null and worker_id is not null and not released)),
      check ((state in ('ended', 'lapsed')) = (outcome is not null))
    )`.execute(db);
    await sql`create index call_queue on call (tool_id, digest, queued_at) where state = 'queued'`.execute(db);
    await sql`create index call_held on call (worker_id) where not released`.execute(db);
    await sql`create index call_open on call (org_id) where state in ('queued', 'dispatched')`.execute(db);
    await sql`create index call_deadline on call (deadline_at) where state = 'dispatched'`.execute(db);
    await sql`create index call_cancel_deadline on call (cancel_deadline) where state = 'dispatched'`.execute(db);
    await sql`create index call_ended on call (ended_at) where state in ('ended', 'lapsed')`.execute(db);
    await sql`create table call_output (
      call_id uuid not null references call on delete cascade,
      org_id uuid not null,
      position integer not null,
      text bytea not null,
      primary key (call_id, position)
    )`.execute(db);
    for (const table of ["tool", "tool_definition", "worker", "worker_tool", "call", "call_output"]) {
      await enableOrgSecurity(db, table, "tools");
    }
    await createFillWorker(db);
  },
  down: async (db) => {
    await sql`drop function fill_worker(uuid, integer, text)`.execute(db);
    for (const table of ["call_output", "call", "worker_tool", "worker", "tool_definition", "tool"]) {
      await sql`drop table ${sql.table(table)}`.execute(db);
    }
  },
};

/**
 * `fill_worker(worker, most, replica)` hands the oldest queued calls that a
 * worker serves to it, at most `most`, and never more than it has places; tells
 * the other replicas; returns the calls.
 *
 * The lock on the worker's row makes the count of its places exact: every
 * statement of a function sees what was committed before it, so the count is
 * taken after the lock was had. Calls that another worker is being given are
 * skipped, not waited for, so that locks never form a circle.
 */
async function createFillWorker(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function fill_worker(p_worker uuid, p_most integer, p_replica text) returns setof uuid
    language plpgsql as $$
    declare
      v_name text;
      v_places integer;
      v_calls uuid[];
    begin
      select name, concurrency into v_name, v_places from worker
       where worker_id = p_worker and stream_id is not null and not draining and lease_until > clock_timestamp()
         for update;
      if not found then
        return;
      end if;
      select v_places - count(*) into v_places from call where worker_id = p_worker and not released;
      if v_places <= 0 then
        return;
      end if;
      with picked as (
        select c.call_id from call c
          join worker_tool t on t.worker_id = p_worker and t.tool_id = c.tool_id and t.digest = c.digest
         where c.state = 'queued'
         order by c.queued_at, c.call_id
         limit least(v_places, p_most)
           for update of c skip locked
      ), given as (
        update call set
          state = 'dispatched', attempt = attempt + 1, handout_id = gen_random_uuid(), worker_id = p_worker,
          worker_name = v_name, released = false, report_hash = null, report_seq = 0,
          dispatched_at = clock_timestamp(), deadline_at = clock_timestamp() + make_interval(secs => timeout_ms / 1000.0)
        where call_id in (select call_id from picked)
        returning call_id
      )
      select array_agg(call_id) into v_calls from given;
      if v_calls is null then
        return;
      end if;
      update worker set assigned_at = clock_timestamp() where worker_id = p_worker;
      perform pg_notify('tools_event', 'worker ' || p_worker || ' ' || p_replica);
      perform pg_notify('tools_event', 'call ' || id || ' ' || p_replica) from unnest(v_calls) id;
      return query select unnest(v_calls);
    end $$`.execute(db);
}
