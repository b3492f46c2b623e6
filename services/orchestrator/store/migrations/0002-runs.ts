import { sql } from "kysely";
import type { Migration } from "../../../runtime/postgres/migrator.ts";
import { appendForTurns } from "./0001-initial.ts";

/**
 * Runs without a session. A *root* is what a shard owns: a session, or a run
 * that hangs under none; its children hang under the same root. `append` takes
 * the org from the session or the root's row; only a root run that is new
 * brings its org along, which its command's principal is of.
 */
export const migration: Migration = {
  name: "0002-runs",
  destructive: false,
  up: async (db) => {
    await sql.raw(`drop function append`).execute(db);
    for (const statement of [...changes, appendForRuns, parkDamaged, ...rights]) await sql.raw(statement).execute(db);
  },
  down: async (db) => {
    for (const statement of undo) await sql.raw(statement).execute(db);
    for (const statement of appendForTurns) await sql.raw(statement).execute(db);
  },
};

/** The states of runs, as stored; the numbers of RunState in the contract. */
const changes: readonly string[] = [
  `alter table run alter column session_id drop not null, alter column ordinal drop not null`,
  `alter table run
    add column root_id uuid,
    add column parent_run_id uuid,
    add column name text not null default '',
    add column state smallint not null default 1,
    add column labels jsonb not null default '{}',
    add column schedule_id uuid,
    add column wake_at timestamptz,
    add column created_at timestamptz not null default clock_timestamp(),
    add column ended_at timestamptz`,
  `update run set root_id = session_id, name = coalesce((
    select a.name from session s join agent a on a.agent_id = s.agent_id where s.session_id = run.session_id), '')`,
  // What turns end with was in their views alone.
  `update run set state = case when ended then 4 else 1 end`,
  `alter table run alter column root_id set not null`,
  `drop index run_open_by_shard`,
  `create index run_running_by_shard on run (shard) where state = 1`,
  `create index run_by_root on run (root_id) where root_id <> run_id and session_id is null`,
  `create index run_by_wake on run (wake_at) where wake_at is not null`,
  `create index run_by_org on run (org_id, run_id)`,
  `create index run_by_schedule on run (schedule_id, run_id) where schedule_id is not null`,
  // The inbox is for any root.
  `alter table inbox rename column session_id to root_id`,
];

export const appendForRuns = `create function append(
    w bigint, expected_batch bigint, shards smallint[], epochs bigint[],
    n_run uuid[], n_root uuid[], n_shard smallint[], n_org uuid[], n_session uuid[], n_parent uuid[], n_ordinal int[],
    n_name text[], n_labels text[], n_schedule uuid[], n_view bytea[],
    e_run uuid[], e_seq int[], e_kind smallint[], e_body bytea[], e_hash bytea[],
    h_run uuid[], h_from int[], h_previous bytea[], h_to int[], h_chain bytea[], h_state smallint[], h_wake timestamptz[],
    h_view bytea[],
    s_session uuid[], s_from bigint[], s_to bigint[], s_input bigint[], s_output bigint[], s_models int[],
    s_tools int[], s_duration bigint[], s_deleted boolean[],
    v_session uuid[], v_seq bigint[], v_body bytea[],
    r_command uuid[], r_reply bytea[],
    i_root uuid[], i_method text[], i_key bytea[], i_hash bytea[], i_response bytea[],
    note text
  ) returns table (pos_before bigint, relayed_before bigint)
  language plpgsql security definer set search_path from current as $$
  #variable_conflict use_column
  declare
    n int := cardinality(e_run);
    found_count int;
    seen record;
  begin
    update writer set batch = batch + 1, pos = pos + n
      where writer = w and not fenced and batch = expected_batch and lease_until > clock_timestamp()
      returning pos - n, relayed into pos_before, relayed_before;
    if not found then
      select fenced, batch into seen from writer where writer = w;
      if not found or seen.fenced then raise 'the writer is fenced' using errcode = 'CF001'; end if;
      if seen.batch <> expected_batch then raise 'not the next batch' using errcode = 'CF004'; end if;
      raise 'the lease expired' using errcode = 'CF005';
    end if;
    select count(*) into found_count
      from unnest(shards, epochs) x(shard, epoch) join shard o on o.shard = x.shard and o.epoch = x.epoch and o.writer = w;
    if found_count <> cardinality(shards) then raise 'a shard is lost' using errcode = 'CF001'; end if;

    if cardinality(n_run) > 0 then
      insert into run (run_id, org_id, root_id, session_id, parent_run_id, shard, ordinal, name, labels, schedule_id, view)
        select x.r, coalesce(s.org_id, t.org_id, x.g), x.o, x.s, x.p, coalesce(s.shard, t.shard, x.h), x.n, x.m,
          x.l::jsonb, x.c, x.b
        from unnest(n_run, n_root, n_shard, n_org, n_session, n_parent, n_ordinal, n_name, n_labels, n_schedule, n_view)
          x(r, o, h, g, s, p, n, m, l, c, b)
        left join session s on s.session_id = x.o
        left join run t on t.run_id = x.o and t.run_id <> x.r
        where case when x.s is not null then s.deleted_at is null and s.session_id = x.s
          else x.o = x.r or t.run_id is not null end
          and coalesce(s.shard, t.shard, x.h) = any(shards);
      get diagnostics found_count = row_count;
      if found_count <> cardinality(n_run) then raise 'a run without a root' using errcode = 'CF002'; end if;
    end if;
    if cardinality(h_run) > 0 then
      update run u set head = x.t, chain = x.c, state = x.e, ended = x.e >= 4, wake_at = x.w,
          ended_at = case when x.e >= 4 then clock_timestamp() end, view = coalesce(x.b, u.view)
        from unnest(h_run, h_from, h_previous, h_to, h_chain, h_state, h_wake, h_view) x(r, f, p, t, c, e, w, b)
        where u.run_id = x.r and u.head = x.f and u.chain = x.p and not u.ended and u.shard = any(shards);
      get diagnostics found_count = row_count;
      if found_count <> cardinality(h_run) then raise 'a run is elsewhere' using errcode = 'CF002'; end if;
      insert into entry (run_id, seq, org_id, writer, pos, kind, body, hash)
        select x.r, x.q, u.org_id, w, pos_before + x.i, x.k, x.b, x.h
        from unnest(e_run, e_seq, e_kind, e_body, e_hash) with ordinality x(r, q, k, b, h, i)
        join run u on u.run_id = x.r;
      get diagnostics found_count = row_count;
      if found_count <> n then raise 'an entry without a run' using errcode = 'CF002'; end if;
    end if;
    if cardinality(s_session) > 0 then
      update session u set last_seq = x.t, updated_at = clock_timestamp(),
          input_tokens = u.input_tokens + x.i, output_tokens = u.output_tokens + x.o,
          model_calls = u.model_calls + x.m, tool_calls = u.tool_calls + x.l, duration_ms = u.duration_ms + x.d,
          deleted_at = case when x.x then clock_timestamp() else u.deleted_at end
        from unnest(s_session, s_from, s_to, s_input, s_output, s_models, s_tools, s_duration, s_deleted)
          x(s, f, t, i, o, m, l, d, x)
        where u.session_id = x.s and u.last_seq = x.f and u.deleted_at is null and u.shard = any(shards);
      get diagnostics found_count = row_count;
      if found_count <> cardinality(s_session) then raise 'a session is elsewhere' using errcode = 'CF002'; end if;
    end if;
    if cardinality(v_session) > 0 then
      insert into session_event (session_id, seq, org_id, body)
        select x.s, x.q, s.org_id, x.b
        from unnest(v_session, v_seq, v_body) x(s, q, b) join session s on s.session_id = x.s;
    end if;
    if cardinality(r_command) > 0 then
      update inbox u set reply = x.b, answered_at = clock_timestamp()
        from unnest(r_command, r_reply) x(c, b) where u.command_id = x.c and u.answered_at is null;
      get diagnostics found_count = row_count;
      if found_count <> cardinality(r_command) then raise 'a command is answered' using errcode = 'CF002'; end if;
    end if;
    if cardinality(i_key) > 0 then
      insert into answered (org_id, method, key_digest, request_digest, response)
        select coalesce(s.org_id, t.org_id), x.m, x.k, x.h, x.r
        from unnest(i_root, i_method, i_key, i_hash, i_response) x(o, m, k, h, r)
        left join session s on s.session_id = x.o left join run t on t.run_id = x.o
        on conflict do nothing;
      get diagnostics found_count = row_count;
      if found_count <> cardinality(i_key) then raise 'an idempotency key is taken' using errcode = 'CF003'; end if;
    end if;
    if note is not null then perform pg_notify('orchestrator_commit', w || note); end if;
    return next;
  end $$`;

/** Parks a run whose journal cannot be gone on with: only its row says so. */
const parkDamaged = `create function park_damaged(w bigint, damaged uuid, why bytea) returns boolean
  language plpgsql security definer set search_path from current as $$
  begin
    perform 1 from writer where writer = w and not fenced and lease_until > clock_timestamp() for update;
    if not found then raise 'the writer is fenced' using errcode = 'CF001'; end if;
    update run u set state = 3, wake_at = null, view = case when u.session_id is null then why else u.view end
      where u.run_id = damaged and not u.ended
        and exists (select 1 from shard o where o.shard = u.shard and o.writer = w);
    return found;
  end $$`;

const rights: readonly string[] = ["append", "park_damaged"].flatMap((name) => [
  `revoke execute on function ${name} from public`,
  `grant execute on function ${name} to cadre_orchestrator_engine`,
]);

const undo: readonly string[] = [
  `drop function append`,
  `drop function park_damaged`,
  `alter table inbox rename column root_id to session_id`,
  // What has no session had no place before.
  `delete from entry where run_id in (select run_id from run where session_id is null)`,
  `delete from run where session_id is null`,
  `drop index run_running_by_shard, run_by_root, run_by_wake, run_by_org, run_by_schedule`,
  `alter table run drop column root_id, drop column parent_run_id, drop column name, drop column state,
    drop column labels, drop column schedule_id, drop column wake_at, drop column created_at, drop column ended_at`,
  `create index run_open_by_shard on run (shard) where not ended`,
  `alter table run alter column session_id set not null, alter column ordinal set not null`,
];
