import { type Selectable, sql } from "kysely";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import type { Entry, GraphEnd } from "../domain/entry.ts";
import { damaged } from "../domain/run.ts";
import { hasEnded, type RunState, runState } from "./append-store.ts";
import { decodeEntry } from "./entry-codec.ts";
import { assertNewestRow, goesOnBehindHead, readJournal } from "./journal-reader.ts";
import type { RootState, RunPlace, RunStore, StoredGraphRun } from "./run-store.ts";
import type { OrchestratorSchema } from "./schema.ts";

type RunRow = Pick<Selectable<OrchestratorSchema["run"]>, "run_id" | "state" | "head" | "chain" | "wake_at"> & {
  readonly goes_on_behind_head: boolean;
};

/** Runs of graphs in PostgreSQL. */
export class PostgresRunStore implements RunStore {
  readonly #database: Database<OrchestratorSchema>;

  constructor(database: Database<OrchestratorSchema>) {
    this.#database = database;
  }

  async load(rootId: string): Promise<RootState | undefined> {
    const { engine } = this.#database;
    const root = await engine
      .selectFrom("run")
      .select(["org_id", "shard"])
      .where("run_id", "=", rootId)
      .where("root_id", "=", rootId)
      .where("session_id", "is", null)
      .executeTakeFirst();
    if (root === undefined) return undefined;
    const rows = await engine
      .selectFrom("run")
      .select(["run_id", "state", "head", "chain", "wake_at", goesOnBehindHead()])
      .where((where) => where.or([where("run_id", "=", rootId), where("root_id", "=", rootId)]))
      .where("ended", "=", false)
      .orderBy("run_id")
      .execute();
    const open: StoredGraphRun[] = [];
    const broken: { runId: string; message: string }[] = [];
    for (const row of rows) {
      try {
        open.push(await this.#read(row));
      } catch (error) {
        if (!(error instanceof AppError) || error.reason !== "DATA_LOSS") throw error;
        broken.push({ runId: row.run_id, message: error.message });
      }
    }
    return { rootId, orgId: root.org_id, shard: root.shard, open, damaged: broken };
  }

  async findEnd(runId: string): Promise<GraphEnd | undefined> {
    const row = await this.#database.engine
      .selectFrom("run")
      .innerJoin("entry", (join) => join.onRef("entry.run_id", "=", "run.run_id").onRef("entry.seq", "=", "run.head"))
      .select(["run.state", "entry.body", "entry.hash", "run.chain"])
      .where("run.run_id", "=", runId)
      .executeTakeFirst();
    if (row === undefined || !hasEnded(row.state as RunState)) return undefined;
    if (!Buffer.from(row.hash).equals(row.chain)) throw damaged("does not end where it should");
    const { body } = decodeEntry(row.body);
    if (body.type !== "graph.ended") throw damaged("does not end with its end");
    return body.end;
  }

  locate(orgId: string, runId: string): Promise<RunPlace | undefined> {
    return this.#database.asOrg(orgId, async (transaction) => {
      const row = await transaction
        .selectFrom("run")
        .select(["root_id", "session_id", "state"])
        .where("run_id", "=", runId)
        .executeTakeFirst();
      if (row === undefined) return undefined;
      return { rootId: row.root_id, sessionId: row.session_id ?? undefined, state: row.state as RunState };
    });
  }

  async listRunning(shards: readonly number[]): Promise<readonly string[]> {
    if (shards.length === 0) return [];
    const rows = await this.#database.engine
      .selectFrom("run")
      .select("root_id")
      .distinct()
      .where("shard", "in", shards)
      .where("state", "=", runState.running)
      .where("session_id", "is", null)
      .execute();
    return rows.map((row) => row.root_id);
  }

  async listDue(shards: readonly number[], limit: number) {
    if (shards.length === 0) return [];
    const { rows } = await sql<{ root_id: string; wake_at: Date }>`
      select root_id, wake_at from run
      where wake_at <= clock_timestamp() and shard = any(${shards}::smallint[])
      order by wake_at limit ${limit}`.execute(this.#database.engine);
    return rows.map((row) => ({ rootId: row.root_id, wakeAtMs: row.wake_at.getTime() }));
  }

  async nextDue(shards: readonly number[]): Promise<number | undefined> {
    if (shards.length === 0) return undefined;
    const { rows } = await sql<{ wake_at: Date }>`
      select wake_at from run where wake_at is not null and shard = any(${shards}::smallint[])
      order by wake_at limit 1`.execute(this.#database.engine);
    return rows[0]?.wake_at.getTime();
  }

  async countOpen(orgId: string, most: number): Promise<number> {
    const { rows } = await sql<{ count: bigint }>`
      select count(*)::bigint as count from (
        select 1 from run where org_id = ${orgId} and not ended and session_id is null and parent_run_id is null
        limit ${most}) open`.execute(this.#database.engine);
    return Number(rows[0]?.count ?? 0n);
  }

  async parkDamaged(writer: bigint, runId: string, view: Uint8Array): Promise<void> {
    await sql`select park_damaged(${writer}::bigint, ${runId}::uuid, ${Buffer.from(view)}::bytea)`.execute(
      this.#database.engine,
    );
  }

  /** Reads a run's journal and checks its chain up to the stored head. Throws DATA_LOSS. */
  async #read(row: RunRow): Promise<StoredGraphRun> {
    assertNewestRow(row);
    const entries: Entry[] = [];
    for await (const page of readJournal(this.#database.engine, row)) {
      for (const { body } of page) entries.push(decodeEntry(body));
    }
    return {
      runId: row.run_id,
      state: row.state as RunState,
      wakeAtMs: row.wake_at?.getTime(),
      head: row.head,
      chain: row.chain,
      entries,
    };
  }
}
