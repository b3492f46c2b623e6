import { sql } from "kysely";
import type { Migration } from "../../../runtime/postgres/migrator.ts";
import { enableOrgSecurity } from "../../../runtime/postgres/org-security.ts";

/**
 * The labels of runs, a row each, so that lists find rare ones without reading
 * the runs of an org, and common ones newest first. An index on `run.labels`
 * cannot do that: row-level security keeps `@>` from using it. Triggers keep
 * the table up, so that whatever writes runs need not know of it; a run without
 * labels costs nothing.
 */
export const migration: Migration = {
  name: "0004-run-labels",
  destructive: false,
  up: async (db) => {
    await sql.raw(table).execute(db);
    await enableOrgSecurity(db, "run_label", "orchestrator");
    for (const statement of [...triggers, ...rest]) await sql.raw(statement).execute(db);
  },
  down: async (db) => {
    for (const statement of undo) await sql.raw(statement).execute(db);
  },
};

const table = `create table run_label (
    org_id uuid not null,
    name text not null,
    value text not null,
    run_id uuid not null,
    primary key (org_id, name, value, run_id)
  )`;

const triggers: readonly string[] = [
  `create function add_run_labels() returns trigger
  language plpgsql set search_path from current as $$
  begin
    insert into run_label (org_id, name, value, run_id)
      select new.org_id, l.key, l.value, new.run_id from jsonb_each_text(new.labels) l;
    return null;
  end $$`,
  `create function remove_run_labels() returns trigger
  language plpgsql set search_path from current as $$
  begin
    delete from run_label r using jsonb_each_text(old.labels) l
      where r.org_id = old.org_id and r.name = l.key and r.value = l.value and r.run_id = old.run_id;
    return null;
  end $$`,
  `create trigger run_labels_added after insert on run
    for each row when (new.labels <> '{}') execute function add_run_labels()`,
  `create trigger run_labels_removed after delete on run
    for each row when (old.labels <> '{}') execute function remove_run_labels()`,
];

const rest: readonly string[] = [
  `insert into run_label (org_id, name, value, run_id)
    select u.org_id, l.key, l.value, u.run_id from run u, jsonb_each_text(u.labels) l`,
  `revoke insert, update, delete, truncate on run_label from cadre_orchestrator_app, cadre_orchestrator_engine`,
];

const undo: readonly string[] = [
  `drop trigger run_labels_added on run`,
  `drop trigger run_labels_removed on run`,
  `drop function add_run_labels, remove_run_labels`,
  `drop table run_label`,
];
