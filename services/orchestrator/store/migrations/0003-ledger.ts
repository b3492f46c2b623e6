import { sql } from "kysely";
import type { Migration } from "../../../runtime/postgres/migrator.ts";
import { enableOrgSecurity } from "../../../runtime/postgres/org-security.ts";

/**
 * What stands around the journal: where large values are, what is left of runs
 * that are gone, and what starts runs by the clock.
 */
export const migration: Migration = {
  name: "0003-ledger",
  destructive: false,
  up: async (db) => {
    for (const statement of tables) await sql.raw(statement).execute(db);
    for (const table of ["blob", "run_receipt", "schedule"]) {
      await enableOrgSecurity(db, table, "orchestrator");
    }
    for (const statement of [...functions, ...rights]) await sql.raw(statement).execute(db);
  },
  down: async (db) => {
    await sql.raw(`drop function prune_run`).execute(db);
    await sql.raw(`drop index run_prunable, run_open_by_schedule`).execute(db);
    for (const table of ["schedule", "run_receipt", "blob"]) {
      await sql.raw(`drop table ${table}`).execute(db);
    }
  },
};

const tables: readonly string[] = [
  // Values of an org that are kept outside of entries, by their digests, and when one was kept last.
  `create table blob (
    org_id uuid not null,
    sha256 bytea not null,
    size bigint not null,
    kept_at timestamptz not null default clock_timestamp(),
    primary key (org_id, sha256)
  )`,
  `create index blob_by_digest on blob (sha256)`,
  `create index blob_by_age on blob (kept_at)`,
  // What is left of a run when its journal is gone: what ran and how its ledger ended.
  `create table run_receipt (
    run_id uuid primary key,
    org_id uuid not null,
    name text not null,
    state smallint not null,
    entries int not null,
    ledger_head bytea not null,
    pins bytea not null,
    created_at timestamptz not null,
    ended_at timestamptz not null
  )`,
  `create index run_receipt_by_age on run_receipt (ended_at)`,
  // `next_due` is the time that is due next, and `queued_due` one whose run waits for the end of an earlier one. A
  // run of `starting_due` may exist from `starting_since` on. `definition`, `principal` and `last_error` are messages
  // of the contract.
  `create table schedule (
    schedule_id uuid primary key,
    org_id uuid not null,
    shard smallint not null,
    name text not null,
    definition bytea not null,
    principal bytea not null,
    next_due timestamptz,
    queued_due timestamptz,
    starting_due timestamptz,
    starting_since timestamptz,
    last_due timestamptz,
    last_run_id uuid,
    skipped bigint not null default 0,
    last_error bytea,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    unique (org_id, name)
  )`,
  `create index schedule_due on schedule (shard, next_due) where next_due is not null`,
  `create index schedule_queued on schedule (shard) where queued_due is not null`,
  `create index run_open_by_schedule on run (schedule_id) where schedule_id is not null and not ended`,
  `create index run_prunable on run (org_id, ended_at) where ended and session_id is null and root_id = run_id`,
];

const functions: readonly string[] = [
  // Removes a run that ended with all below it, in portions, and leaves receipts of those that `p_run` names. Null
  // while something under its root is open, waits for the relay, or is being removed; else how many entries are left:
  // call again until there are none.
  `create function prune_run(victim uuid, p_run uuid[], p_pins bytea[], portion int) returns int
  language plpgsql security definer set search_path from current as $$
  declare root uuid; gone uuid[]; n int;
  begin
    select root_id into root from run where run_id = victim and session_id is null;
    if not found then return null; end if;
    perform 1 from run where run_id = root for update skip locked;
    if not found then return null; end if;
    perform 1 from run where (run_id = root or root_id = root) and not ended;
    if found then return null; end if;
    with recursive below as (
      select run_id from run where run_id = victim
      union all
      select c.run_id from run c join below b on c.parent_run_id = b.run_id where c.root_id = root and c.run_id <> root
    ) select array_agg(run_id) into gone from below;
    perform 1 from entry e join writer l on l.writer = e.writer where e.run_id = any(gone) and e.pos > l.relayed;
    if found then return null; end if;
    insert into run_receipt (run_id, org_id, name, state, entries, ledger_head, pins, created_at, ended_at)
      select u.run_id, u.org_id, u.name, u.state, u.head, u.chain, x.p, u.created_at, coalesce(u.ended_at, clock_timestamp())
      from unnest(p_run, p_pins) x(r, p) join run u on u.run_id = x.r and u.run_id = any(gone)
      on conflict do nothing;
    delete from entry where (run_id, seq) in (
      select run_id, seq from entry where run_id = any(gone) order by run_id, seq desc limit portion);
    get diagnostics n = row_count;
    if n < portion then
      delete from run where run_id = any(gone);
      return 0;
    end if;
    return (select count(*) from entry where run_id = any(gone));
  end $$`,
];

const rights: readonly string[] = [
  `revoke insert, update, delete, truncate on run_receipt from cadre_orchestrator_app, cadre_orchestrator_engine`,
  // Receipts are removed when they are old.
  `grant delete on run_receipt to cadre_orchestrator_engine`,
  `revoke all on blob from cadre_orchestrator_app`,
  `revoke execute on function prune_run from public`,
  `grant execute on function prune_run to cadre_orchestrator_engine`,
];
