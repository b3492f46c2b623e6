import { sql } from "kysely";
import type { Migration } from "../../../runtime/postgres/migrator.ts";
import { appendForRuns } from "./0002-runs.ts";

/**
 * An `append` that takes as long for ten thousand open runs as for ten. The
 * former one joined its arrays with `run` and `session`, and PostgreSQL keeps
 * the plan of such a join for as long as the connection lives or until the
 * table is analyzed: one that was made while a table was small reads all of
 * it, or all that is open, in every call, minutes after it has grown. This one
 * finds each row by its key, and entries and events name theirs by its place
 * in the arrays; what else has to hold of a row is said so that no partial
 * index fits.
 */
export const migration: Migration = {
  name: "0005-append-by-key",
  destructive: false,
  up: async (db) => {
    for (const statement of [drop, append, ...rights]) await sql.raw(statement).execute(db);
  },
  down: async (db) => {
    for (const statement of [drop, appendForRuns, ...rights]) await sql.raw(statement).execute(db);
  },
};

const drop = `drop function append`;

const append = `create function append(
    w bigint, expected_batch bigint, shards smallint[], epochs bigint[],
    n_run uuid[], n_root uuid[], n_shard smallint[], n_org uuid[], n_session uuid[], n_parent uuid[], n_ordinal int[],
    n_name text[], n_labels text[], n_schedule uuid[], n_view bytea[],
    e_head int[], e_seq int[], e_kind smallint[], e_body bytea[], e_hash bytea[],
    h_run uuid[], h_from int[], h_previous bytea[], h_to int[], h_chain bytea[], h_state smallint[], h_wake timestamptz[],
    h_view bytea[],
    s_session uuid[], s_from bigint[], s_to bigint[], s_input bigint[], s_output bigint[], s_models int[],
    s_tools int[], s_duration bigint[], s_deleted boolean[],
    v_session int[], v_seq bigint[], v_body bytea[],
    r_command uuid[], r_reply bytea[],
    i_root uuid[], i_method text[], i_key bytea[], i_hash bytea[], i_response bytea[],
    note text
  ) returns table (pos_before bigint, relayed_before bigint)
  language plpgsql security definer set search_path from current
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
  #variable_conflict use_column
  declare
    n int := cardinality(e_head);
    h_org uuid[] := array_fill(null::uuid, array[cardinality(h_run)]);
    s_org uuid[] := array_fill(null::uuid, array[cardinality(s_session)]);
    found_count int;
    found_org uuid;
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
    for i in 1 .. cardinality(h_run) loop
      update run u set head = h_to[i], chain = h_chain[i], state = h_state[i], ended = h_state[i] >= 4,
          wake_at = h_wake[i], ended_at = case when h_state[i] >= 4 then clock_timestamp() end,
          view = coalesce(h_view[i], u.view)
        where u.run_id = h_run[i] and u.head = h_from[i] and u.chain = h_previous[i] and u.state < 4
          and u.shard = any(shards)
        returning u.org_id into found_org;
      if not found then raise 'a run is elsewhere' using errcode = 'CF002'; end if;
      h_org[i] := found_org;
    end loop;
    if n > 0 then
      insert into entry (run_id, seq, org_id, writer, pos, kind, body, hash)
        select h_run[x.a], x.q, h_org[x.a], w, pos_before + x.i, x.k, x.b, x.h
        from unnest(e_head, e_seq, e_kind, e_body, e_hash) with ordinality x(a, q, k, b, h, i);
    end if;
    for i in 1 .. cardinality(s_session) loop
      update session u set last_seq = s_to[i], updated_at = clock_timestamp(),
          input_tokens = u.input_tokens + s_input[i], output_tokens = u.output_tokens + s_output[i],
          model_calls = u.model_calls + s_models[i], tool_calls = u.tool_calls + s_tools[i],
          duration_ms = u.duration_ms + s_duration[i],
          deleted_at = case when s_deleted[i] then clock_timestamp() else u.deleted_at end
        where u.session_id = s_session[i] and u.last_seq = s_from[i] and num_nonnulls(u.deleted_at) = 0
          and u.shard = any(shards)
        returning u.org_id into found_org;
      if not found then raise 'a session is elsewhere' using errcode = 'CF002'; end if;
      s_org[i] := found_org;
    end loop;
    if cardinality(v_session) > 0 then
      insert into session_event (session_id, seq, org_id, body)
        select s_session[x.a], x.q, s_org[x.a], x.b from unnest(v_session, v_seq, v_body) x(a, q, b);
    end if;
    for i in 1 .. cardinality(r_command) loop
      update inbox u set reply = r_reply[i], answered_at = clock_timestamp()
        where u.command_id = r_command[i] and num_nonnulls(u.answered_at) = 0;
      if not found then raise 'a command is answered' using errcode = 'CF002'; end if;
    end loop;
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

const rights: readonly string[] = [
  `revoke execute on function append from public`,
  `grant execute on function append to cadre_orchestrator_engine`,
];
