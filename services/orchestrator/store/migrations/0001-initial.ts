import { sql } from "kysely";
import { createIdempotencyTable, dropIdempotencyTable } from "../../../runtime/postgres/idempotency.ts";
import type { Migration } from "../../../runtime/postgres/migrator.ts";
import { enableOrgSecurity } from "../../../runtime/postgres/org-security.ts";

/**
 * The write path. Who may write what:
 *
 * - `run`, `entry` and `session_event` are written by `append` alone, which runs
 *   with its owner's rights; no role of a process can change them otherwise.
 * - `append` takes the org from the session, never from its caller.
 * - Whatever takes a shard from a writer locks that writer's row first, so it
 *   waits for an append that runs, and the next append sees it.
 */
export const migration: Migration = {
  name: "0001-initial",
  destructive: false,
  up: async (db) => {
    for (const statement of tables) await sql.raw(statement).execute(db);
    for (const table of ["agent", "session", "run", "entry", "session_event", "inbox", "answered"]) {
      await enableOrgSecurity(db, table, "orchestrator");
    }
    await createIdempotencyTable(db, "orchestrator");
    for (const statement of [...functions, ...rights]) await sql.raw(statement).execute(db);
  },
  down: async (db) => {
    for (const name of ["append", "register_writer", "claim_shards", "release_shards", "retire_writer", "purge"]) {
      await sql.raw(`drop function ${name}`).execute(db);
    }
    await dropIdempotencyTable(db);
    for (const table of tableNames) await sql.raw(`drop table ${table}`).execute(db);
  },
};

const tableNames = [
  "answered",
  "inbox",
  "session_event",
  "entry",
  "run",
  "session",
  "agent",
  "shard",
  "writer",
] as const;

const tables: readonly string[] = [
  // A process, from its start until it is fenced. `batch` counts its appends,
  // by which an outcome that got lost is found again; `pos` numbers its
  // entries; up to `relayed` they are on the bus.
  `create table writer (
    writer bigint generated always as identity primary key,
    process text not null,
    lease_until timestamptz not null,
    fenced boolean not null default false,
    batch bigint not null default 0,
    pos bigint not null default 0,
    relayed bigint not null default 0,
    created_at timestamptz not null default clock_timestamp()
  )`,
  `create table shard (
    shard smallint primary key,
    writer bigint,
    epoch bigint not null default 0
  )`,
  `insert into shard (shard) select generate_series(0, 63)`,
  `create table agent (
    agent_id uuid primary key,
    org_id uuid not null,
    name text not null,
    definition bytea not null,
    revision int not null,
    digest text not null,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    unique (org_id, name)
  )`,
  `create table session (
    session_id uuid primary key,
    org_id uuid not null,
    shard smallint not null,
    agent_id uuid not null,
    title text not null,
    labels jsonb not null,
    last_seq bigint not null default 0,
    input_tokens bigint not null default 0,
    output_tokens bigint not null default 0,
    model_calls int not null default 0,
    tool_calls int not null default 0,
    duration_ms bigint not null default 0,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz
  )`,
  `create index session_by_org on session (org_id, session_id) where deleted_at is null`,
  `create index session_deleted on session (shard) where deleted_at is not null`,
  // `view` is the run as readers see it, a copy of the fold made when it is accepted and when it ends.
  `create table run (
    run_id uuid primary key,
    org_id uuid not null,
    session_id uuid not null,
    shard smallint not null,
    ordinal int not null,
    head int not null default 0,
    chain bytea not null default decode(repeat('00', 32), 'hex'),
    ended boolean not null default false,
    view bytea not null,
    unique (session_id, ordinal)
  )`,
  `create index run_open_by_shard on run (shard) where not ended`,
  `create index run_open_by_org on run (org_id) where not ended`,
  `create table entry (
    run_id uuid not null,
    seq int not null,
    org_id uuid not null,
    writer bigint not null,
    pos bigint not null,
    kind smallint not null,
    body bytea not null,
    hash bytea not null,
    primary key (run_id, seq),
    unique (writer, pos)
  )`,
  `create table session_event (
    session_id uuid not null,
    seq bigint not null,
    org_id uuid not null,
    body bytea not null,
    primary key (session_id, seq)
  )`,
  // Commands that came to a process which does not own their shard.
  `create table inbox (
    command_id uuid primary key,
    org_id uuid not null,
    session_id uuid not null,
    shard smallint not null,
    body bytea not null,
    reply bytea,
    created_at timestamptz not null default clock_timestamp(),
    answered_at timestamptz
  )`,
  `create index inbox_open on inbox (shard, command_id) where answered_at is null`,
  `create index inbox_answered on inbox (answered_at) where answered_at is not null`,
  // Commands that came with an idempotency key, and their answers.
  `create table answered (
    org_id uuid not null,
    method text not null,
    key_digest bytea not null,
    request_digest bytea not null,
    response bytea not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (org_id, method, key_digest)
  )`,
  `create index answered_by_age on answered (created_at)`,
];

/**
 * Stores a batch of a writer: one statement, one transaction, one notification.
 *   CF001 the writer is fenced, or lost one of the shards
 *   CF002 the batch does not continue what is stored
 *   CF003 an idempotency key is taken
 *   CF004 the batch is not the next one: it was stored before, or another was
 *   CF005 the lease expired, and nobody has taken over yet
 */
const append = `create function append(
    w bigint, expected_batch bigint, shards smallint[], epochs bigint[],
    new_run uuid[], new_session uuid[], new_ordinal int[], new_view bytea[],
    e_run uuid[], e_seq int[], e_kind smallint[], e_body bytea[], e_hash bytea[],
    h_run uuid[], h_from int[], h_previous bytea[], h_to int[], h_chain bytea[], h_ended boolean[], h_view bytea[],
    s_session uuid[], s_from bigint[], s_to bigint[], s_input bigint[], s_output bigint[], s_models int[],
    s_tools int[], s_duration bigint[], s_deleted boolean[],
    v_session uuid[], v_seq bigint[], v_body bytea[],
    r_command uuid[], r_reply bytea[],
    i_session uuid[], i_method text[], i_key bytea[], i_hash bytea[], i_response bytea[],
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

    if cardinality(new_run) > 0 then
      insert into run (run_id, org_id, session_id, shard, ordinal, view)
        select x.r, s.org_id, s.session_id, s.shard, x.o, x.b
        from unnest(new_run, new_session, new_ordinal, new_view) x(r, s, o, b)
        join session s on s.session_id = x.s and s.deleted_at is null;
      get diagnostics found_count = row_count;
      if found_count <> cardinality(new_run) then raise 'no such session' using errcode = 'CF002'; end if;
    end if;
    if cardinality(h_run) > 0 then
      update run u set head = x.t, chain = x.c, ended = x.e, view = coalesce(x.b, u.view)
        from unnest(h_run, h_from, h_previous, h_to, h_chain, h_ended, h_view) x(r, f, p, t, c, e, b)
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
        select s.org_id, x.m, x.k, x.h, x.r
        from unnest(i_session, i_method, i_key, i_hash, i_response) x(s, m, k, h, r) join session s on s.session_id = x.s
        on conflict do nothing;
      get diagnostics found_count = row_count;
      if found_count <> cardinality(i_key) then raise 'an idempotency key is taken' using errcode = 'CF003'; end if;
    end if;
    perform pg_notify('orchestrator_commit', w || note);
    return next;
  end $$`;

const functions: readonly string[] = [
  append,
  // Makes a writer. In a topology where no other process can live, the former ones are fenced at once.
  `create function register_writer(process_name text, lease_ms int, previous_are_dead boolean) returns bigint
  language plpgsql security definer set search_path from current as $$
  declare w bigint;
  begin
    if previous_are_dead then update writer set fenced = true where not fenced; end if;
    insert into writer (process, lease_until)
      values (process_name, clock_timestamp() + make_interval(secs => lease_ms / 1000.0)) returning writer into w;
    return w;
  end $$`,
  // Renews the lease, fences the writers whose lease expired, takes a fair share
  // of the shards that nobody has, and says what this writer has now. A lease
  // that expired is renewed as long as nobody fenced the writer.
  `create function claim_shards(w bigint, lease_ms int)
  returns table (shard smallint, epoch bigint, fair_share int)
  language plpgsql security definer set search_path from current as $$
  #variable_conflict use_column
  declare live int; share int; mine int;
  begin
    update writer set lease_until = clock_timestamp() + make_interval(secs => lease_ms / 1000.0)
      where writer = w and not fenced;
    if not found then raise 'the writer is fenced' using errcode = 'CF001'; end if;
    update writer set fenced = true where writer in (
      select writer from writer where not fenced and lease_until < clock_timestamp() for update skip locked);
    select count(*) into live from writer where not fenced;
    share := ceil(64.0 / greatest(live, 1));
    select count(*) into mine from shard where writer = w;
    if mine < share then
      update shard set writer = w, epoch = epoch + 1 where shard in (
        select o.shard from shard o left join writer l on l.writer = o.writer
          where o.writer is null or l.writer is null or l.fenced
          order by o.shard limit share - mine for update of o skip locked);
    end if;
    return query select s.shard, s.epoch, share from shard s where s.writer = w order by s.shard;
  end $$`,
  // Gives shards up; who is below its share takes them. Refused while entries of
  // theirs wait for the relay, since the next owner's would overtake them.
  `create function release_shards(w bigint, given smallint[]) returns int[]
  language plpgsql security definer set search_path from current as $$
  declare r bigint; released int[];
  begin
    select relayed into r from writer where writer = w for update;
    with kept as (
      select distinct u.shard from entry e join run u on u.run_id = e.run_id
      where e.writer = w and e.pos > r and u.shard = any(given)
    ), gone as (
      update shard set writer = null
      where writer = w and shard = any(given) and shard not in (select k.shard from kept k)
      returning shard
    )
    select coalesce(array_agg(shard), '{}') into released from gone;
    if cardinality(released) > 0 then
      perform pg_notify('orchestrator_shards', w::text);
    end if;
    return released;
  end $$`,
  // Ends a writer that stops in order.
  `create function retire_writer(w bigint) returns void
  language plpgsql security definer set search_path from current as $$
  begin
    update writer set fenced = true where writer = w;
    update shard set writer = null where writer = w;
    perform pg_notify('orchestrator_shards', w::text);
  end $$`,
  // Removes, in small portions, what nobody needs: the content of deleted
  // sessions whose entries are relayed, answered commands, answers that are
  // a day old, and writers that are fenced and relayed. Says how many rows went.
  `create function purge(w bigint, portion int) returns int
  language plpgsql security definer set search_path from current as $$
  #variable_conflict use_column
  declare gone int := 0; n int; victim uuid;
  begin
    for victim in select s.session_id from session s join shard o on o.shard = s.shard and o.writer = w
      where s.deleted_at is not null and not exists (
        select 1 from run u join entry e on e.run_id = u.run_id join writer l on l.writer = e.writer
        where u.session_id = s.session_id and e.pos > l.relayed)
      limit 10
    loop
      delete from session_event where (session_id, seq) in (
        select session_id, seq from session_event where session_id = victim limit portion);
      get diagnostics n = row_count;
      gone := gone + n;
      if n < portion then
        delete from entry where run_id in (select run_id from run where session_id = victim);
        delete from run where session_id = victim;
        delete from session where session_id = victim;
        gone := gone + 1;
      end if;
    end loop;
    delete from inbox where command_id in (
      select command_id from inbox where answered_at < clock_timestamp() - interval '10 minutes' limit portion);
    get diagnostics n = row_count;
    gone := gone + n;
    -- Nobody waits for these any more, and their session is gone.
    delete from inbox where command_id in (
      select command_id from inbox where answered_at is null and created_at < clock_timestamp() - interval '10 minutes'
      limit portion);
    get diagnostics n = row_count;
    gone := gone + n;
    delete from answered where (org_id, method, key_digest) in (
      select org_id, method, key_digest from answered where created_at < clock_timestamp() - interval '24 hours' limit portion);
    get diagnostics n = row_count;
    gone := gone + n;
    delete from writer where fenced and relayed = pos and created_at < clock_timestamp() - interval '1 hour'
      and not exists (select 1 from shard where shard.writer = writer.writer);
    return gone;
  end $$`,
];

const rights: readonly string[] = [
  `revoke insert, update, delete, truncate on run, entry, session_event from cadre_orchestrator_app, cadre_orchestrator_engine`,
  `revoke all on writer, shard from cadre_orchestrator_app`,
  `revoke insert, update, delete, truncate on writer, shard from cadre_orchestrator_engine`,
  `grant update (relayed) on writer to cadre_orchestrator_engine`,
  `revoke update, delete, truncate on session, inbox from cadre_orchestrator_app`,
  ...["append", "register_writer", "claim_shards", "release_shards", "retire_writer", "purge"].flatMap((name) => [
    `revoke execute on function ${name} from public`,
    `grant execute on function ${name} to cadre_orchestrator_engine`,
  ]),
];

/** The function and its rights, for a later migration that goes down. */
export const appendForTurns: readonly string[] = [
  append,
  `revoke execute on function append from public`,
  `grant execute on function append to cadre_orchestrator_engine`,
];
