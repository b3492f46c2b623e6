import { type Kysely, sql } from "kysely";
import type { Migration } from "../../../runtime/postgres/migration.ts";
import { roleOf } from "../../../runtime/postgres/role.ts";

const app = sql.id(roleOf("tools", "app"));
const engine = sql.id(roleOf("tools", "engine"));

/**
 * Calls that are recorded, handed out and ended in groups, in one transaction of their org.
 *
 * The functions run as the owner, whom row-level security does not bind: with
 * it PostgreSQL reads all calls that an org ever made to count those that a
 * worker holds. They reach no other org's rows than those of the ids they get.
 */
export const migration: Migration = {
  name: "0004-groups",
  destructive: false,
  up: async (db) => {
    await createDispatchCalls(db);
    await createEndCalls(db);
    for (const name of ["dispatch_calls", "end_calls"]) {
      await sql`revoke execute on function ${sql.id(name)} from public`.execute(db);
      await sql`grant execute on function ${sql.id(name)} to ${app}, ${engine}`.execute(db);
    }
  },
  down: async (db) => {
    await sql`drop function end_calls`.execute(db);
    await sql`drop function dispatch_calls`.execute(db);
  },
};

/**
 * `dispatch_calls(tools, digests, replica)` hands the queued calls of these
 * definitions to the workers that serve them and have places: to those with the
 * least load if there are fewer calls than workers, else to each by its places.
 * Returns what it handed out.
 *
 * Several workers are locked in the order of their ids, so that two of these
 * never wait for each other.
 */
async function createDispatchCalls(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function dispatch_calls(p_tools uuid[], p_digests text[], p_replica text)
      returns table (given_worker_id uuid, given_call_id uuid)
    language plpgsql security definer set search_path from current as $$
    declare
      v_worker uuid;
      v_share integer;
    begin
      for v_worker, v_share in
        with definition as (
          select distinct d.tool_id, d.digest from unnest(p_tools, p_digests) d (tool_id, digest)
        ), queued as (
          select count(*) as calls from (
            select from definition d join call c on c.tool_id = d.tool_id and c.digest = d.digest
             where c.state = 'queued' limit 1000
          ) waiting
        ), candidate as (
          select w.worker_id, w.assigned_at, w.concurrency - held.calls as places,
                 held.calls::float8 / w.concurrency as load
            from worker w
            cross join lateral (
              select count(*) as calls from call where call.worker_id = w.worker_id and not released
            ) held
           where w.worker_id in (
                   select t.worker_id from definition d
                     join worker_tool t on t.tool_id = d.tool_id and t.digest = d.digest
                 )
             and w.stream_id is not null and not w.draining and w.lease_until > clock_timestamp()
             and held.calls < w.concurrency
        ), chosen as (
          select * from candidate order by load, assigned_at, worker_id limit (select calls from queued)
        )
        select worker_id, ceil(queued.calls * places / sum(places) over ())::integer
          from chosen, queued order by worker_id
      loop
        return query select v_worker, fill_worker(v_worker, v_share, p_replica);
      end loop;
    end $$`.execute(db);
}

/**
 * `end_calls(workers, subjects, handouts, outcomes, hashes, replica)` ends the
 * calls that are still their worker's, gives the workers what waits for the
 * places, and tells the other replicas. A report whose worker is not the
 * subject's, or whose call has ended or is nobody's, changes nothing. Returns
 * the calls that ended, with their hand-outs, and those that were handed out.
 *
 * Workers are locked before calls, as heartbeats lock them, and in order.
 */
async function createEndCalls(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function end_calls(p_workers uuid[], p_subjects text[], p_handouts uuid[], p_outcomes text[],
                              p_hashes bytea[], p_replica text)
      returns table (ended_call_id uuid, ended_handout_id uuid, given_worker_id uuid, given_call_id uuid)
    language plpgsql security definer set search_path from current as $$
    declare
      v_worker uuid;
    begin
      perform from worker where worker_id = any(p_workers) order by worker_id for update;
      for ended_call_id, ended_handout_id in
        update call c set
          state = 'ended', released = true, outcome = r.outcome::json, progress = 'DONE', report_hash = r.hash,
          ended_at = clock_timestamp()
        from unnest(p_workers, p_subjects, p_handouts, p_outcomes, p_hashes)
               r (worker_id, subject, handout_id, outcome, hash)
        join worker w on w.worker_id = r.worker_id and w.subject = r.subject
                     and w.org_id = current_setting('app.org')::uuid
        where c.handout_id = r.handout_id and c.worker_id = r.worker_id and c.state = 'dispatched'
        returning c.call_id, c.handout_id
      loop
        perform pg_notify('tools_event', 'call ' || ended_call_id || ' ' || p_replica);
        return next;
      end loop;
      ended_call_id := null;
      ended_handout_id := null;
      for v_worker in select distinct worker_id from unnest(p_workers) worker_id order by worker_id loop
        given_worker_id := v_worker;
        for given_call_id in select fill_worker(v_worker, 1000, p_replica) loop
          return next;
        end loop;
      end loop;
    end $$`.execute(db);
}
