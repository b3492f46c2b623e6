import { type Kysely, type QueryExecutorProvider, sql } from "kysely";
import { enableOrgSecurity } from "../../postgres/org-security.ts";

/**
 * How long a handled event is remembered, in days: longer than a bus keeps
 * events (7 days unless said), so what can be delivered again is remembered.
 */
export const handledEventKeptDays = 14;

/** For a migration's `up`: the table in which `dedup` records what a group handled. */
export async function createHandledEventTable(db: Kysely<unknown>, service: string): Promise<void> {
  await sql`create table handled_event (
    org_id uuid not null,
    consumer_group text not null,
    event_id uuid not null,
    handled_at timestamptz not null,
    primary key (event_id, consumer_group)
  )`.execute(db);
  await sql`create index handled_event_handled_at on handled_event (handled_at)`.execute(db);
  await enableOrgSecurity(db, "handled_event", service);
}

/** For a migration's `down`. */
export async function dropHandledEventTable(db: Kysely<unknown>): Promise<void> {
  await sql`drop table handled_event`.execute(db);
}

/** Forgets at most `limit` old events; returns how many. Several processes may do so at once. */
export async function pruneHandledEvents(engine: QueryExecutorProvider, limit: number): Promise<number> {
  const { numAffectedRows } = await sql`
    delete from handled_event where (event_id, consumer_group) in (
      select event_id, consumer_group from handled_event
       where handled_at < clock_timestamp() - make_interval(days => ${handledEventKeptDays})
       order by handled_at limit ${limit} for update skip locked
    )`.execute(engine);
  return Number(numAffectedRows ?? 0n);
}
