import { type Selectable, type SelectQueryBuilder, sql, type Transaction } from "kysely";
import type { Database } from "../../runtime/postgres/database.ts";
import type { RunState } from "./append-store.ts";
import type { RunEntries, RunReadStore, RunRow, RunSelection, StoredEntry } from "./run-read-store.ts";
import type { OrchestratorSchema } from "./schema.ts";

type Row = Selectable<OrchestratorSchema["run"]>;
type RunQuery<O> = SelectQueryBuilder<OrchestratorSchema, "run", O>;

/** How far the clock by which an id was made may be from the database's, in milliseconds. */
const clockSkewMs = 3_600_000;

/** Runs in PostgreSQL, for readers. */
export class PostgresRunReadStore implements RunReadStore {
  readonly #database: Database<OrchestratorSchema>;

  constructor(database: Database<OrchestratorSchema>) {
    this.#database = database;
  }

  find(orgId: string, runId: string): Promise<RunRow | undefined> {
    return this.#database.asOrg(orgId, (transaction) => findRun(transaction, runId));
  }

  list(orgId: string, selection: RunSelection, before: string | undefined, limit: number) {
    return this.#database.asOrg(orgId, async (transaction): Promise<readonly RunRow[]> => {
      let query = selected(visibleRuns(transaction), selection).selectAll();
      if (before !== undefined) query = query.where("run_id", "<", before);
      const rows = await query.orderBy("run_id", "desc").limit(limit).execute();
      return rows.map(toRunRow);
    });
  }

  count(orgId: string, selection: RunSelection): Promise<number> {
    return this.#database.asOrg(orgId, async (transaction) => {
      const { count } = await selected(visibleRuns(transaction), selection)
        .select((query) => query.fn.countAll<bigint>().as("count"))
        .executeTakeFirstOrThrow();
      return Number(count);
    });
  }

  readEntries(orgId: string, runId: string, after: number, limit: number): Promise<RunEntries | undefined> {
    return this.#database.asOrg(orgId, async (transaction) => {
      const run = await findRun(transaction, runId);
      if (run === undefined) return undefined;
      if (after >= run.head) return { run, entries: [] };
      const entries = await transaction
        .selectFrom("entry")
        .select(["seq", "kind", "body"])
        .where("run_id", "=", runId)
        .where("seq", ">", after)
        // The second statement may see a head that has moved on since the first.
        .where("seq", "<=", run.head)
        .orderBy("seq")
        .limit(limit)
        .execute();
      return { run, entries };
    });
  }

  readKinds(orgId: string, runId: string, kinds: readonly number[], upTo: number): Promise<readonly StoredEntry[]> {
    return this.#database.asOrg(orgId, (transaction) =>
      transaction
        .selectFrom("entry")
        .select(["seq", "kind", "body"])
        .where("run_id", "=", runId)
        .where("seq", "<=", upTo)
        .where("kind", "in", kinds)
        .orderBy("seq")
        .execute(),
    );
  }
}

async function findRun(transaction: Transaction<OrchestratorSchema>, runId: string): Promise<RunRow | undefined> {
  const row = await visibleRuns(transaction).selectAll().where("run_id", "=", runId).executeTakeFirst();
  return row === undefined ? undefined : toRunRow(row);
}

function visibleRuns(transaction: Transaction<OrchestratorSchema>) {
  return transaction.selectFrom("run").where(
    sql<boolean>`not exists (
        select 1 from session s where s.session_id = run.session_id and s.deleted_at is not null)`,
  );
}

function selected<O>(runs: RunQuery<O>, selection: RunSelection): RunQuery<O> {
  const { states, name, labels, sessionId, scheduleId, parentRunId, runIds } = selection;
  const { createdFromMs, createdBeforeMs } = selection;
  let query = runs;
  if (runIds.length > 0) query = query.where("run_id", "in", runIds);
  if (parentRunId !== undefined) query = query.where("parent_run_id", "=", parentRunId);
  else if (runIds.length === 0) query = query.where("parent_run_id", "is", null);
  if (states.length > 0) query = query.where("state", "in", states);
  if (name !== undefined) query = query.where("name", "=", name);
  for (const [label, value] of Object.entries(labels)) {
    query = query.where("run_id", "in", (expressions) =>
      expressions.selectFrom("run_label").select("run_id").where("name", "=", label).where("value", "=", value),
    );
  }
  if (sessionId !== undefined) query = query.where("session_id", "=", sessionId);
  if (scheduleId !== undefined) query = query.where("schedule_id", "=", scheduleId);
  // Ids begin with the time at which they were made, so the index finds the place where the times begin.
  if (createdFromMs !== undefined) {
    query = query
      .where("created_at", ">=", new Date(createdFromMs))
      .where("run_id", ">=", lowestUuid(createdFromMs - clockSkewMs));
  }
  if (createdBeforeMs !== undefined) {
    query = query
      .where("created_at", "<", new Date(createdBeforeMs))
      .where("run_id", "<", lowestUuid(createdBeforeMs + clockSkewMs));
  }
  return query;
}

/** The lowest UUIDv7 of a millisecond. */
function lowestUuid(ms: number): string {
  const time = Math.min(Math.max(Math.floor(ms), 0), 2 ** 48 - 1)
    .toString(16)
    .padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-0000-0000-000000000000`;
}

function toRunRow(row: Row): RunRow {
  return {
    runId: row.run_id,
    orgId: row.org_id,
    rootId: row.root_id,
    sessionId: row.session_id ?? undefined,
    parentRunId: row.parent_run_id ?? undefined,
    scheduleId: row.schedule_id ?? undefined,
    name: row.name,
    state: row.state as RunState,
    labels: row.labels as Record<string, string>,
    head: row.head,
    chain: row.chain,
    view: row.view,
    createdAtMs: row.created_at.getTime(),
    endedAtMs: row.ended_at?.getTime(),
  };
}
