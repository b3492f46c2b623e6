import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type RunPins, RunPinsSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { sql } from "kysely";
import { byteaArray } from "../../runtime/postgres/bytea-array.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import type { RunState } from "./append-store.ts";
import type { OrchestratorSchema } from "./schema.ts";

/** What is left of a run whose journal is gone. Ids are UUIDs as text, times milliseconds since the epoch. */
export interface RunReceipt {
  readonly runId: string;
  readonly name: string;
  readonly state: RunState;
  readonly entries: number;
  readonly ledgerHead: Uint8Array;
  readonly pins: RunPins;
  readonly createdAtMs: number;
  readonly endedAtMs: number;
}

/** Removes runs that ended, and keeps their receipts. All throw UNAVAILABLE. */
export interface ReceiptStore {
  /** The receipt of a run of an org; undefined if there is none. */
  find(orgId: string, runId: string): Promise<RunReceipt | undefined>;
  /** The runs that go with one: itself and all below it. */
  listBelow(runId: string): Promise<readonly string[]>;
  /**
   * Removes a run that ended, with all below it, in one of several portions.
   *
   * @param pins what each of them held on to, for its receipt
   * @returns how many entries are left: call again until there are none. Undefined while something under its root is
   *   open, waits for the relay, or is being removed elsewhere
   */
  prune(runId: string, pins: ReadonlyMap<string, RunPins>): Promise<number | undefined>;
  /** Orgs that have a root run which ended more than a day ago. */
  listOrgs(): Promise<readonly string[]>;
  /** Root runs of an org that ended before that many days, oldest first. */
  listPrunable(orgId: string, days: number, limit: number): Promise<readonly string[]>;
  /** Removes receipts of runs that ended before that many days; how many. */
  expire(days: number, portion: number): Promise<number>;
}

const portionEntries = 2_000;

/** Receipts in PostgreSQL. */
export class PostgresReceiptStore implements ReceiptStore {
  readonly #database: Database<OrchestratorSchema>;

  constructor(database: Database<OrchestratorSchema>) {
    this.#database = database;
  }

  find(orgId: string, runId: string): Promise<RunReceipt | undefined> {
    return this.#database.asOrg(orgId, async (transaction) => {
      const row = await transaction
        .selectFrom("run_receipt")
        .selectAll()
        .where("run_id", "=", runId)
        .executeTakeFirst();
      if (row === undefined) return undefined;
      return {
        runId: row.run_id,
        name: row.name,
        state: row.state as RunState,
        entries: row.entries,
        ledgerHead: row.ledger_head,
        pins: fromBinary(RunPinsSchema, row.pins),
        createdAtMs: row.created_at.getTime(),
        endedAtMs: row.ended_at.getTime(),
      };
    });
  }

  async listBelow(runId: string): Promise<readonly string[]> {
    const { rows } = await sql<{ run_id: string }>`
      with recursive below as (
        select run_id, root_id from run where run_id = ${runId}
        union all
        select c.run_id, c.root_id from run c join below b on c.parent_run_id = b.run_id
          where c.root_id = b.root_id and c.root_id <> c.run_id
      ) select run_id from below`.execute(this.#database.engine);
    return rows.map((row) => row.run_id);
  }

  async prune(runId: string, pins: ReadonlyMap<string, RunPins>): Promise<number | undefined> {
    const bytes = byteaArray([...pins.values()].map((each) => toBinary(RunPinsSchema, each)));
    const { rows } = await sql<{ left: number | null }>`
      select prune_run(${runId}::uuid, ${[...pins.keys()]}::uuid[], ${bytes}::bytea[], ${portionEntries}) as left`.execute(
      this.#database.engine,
    );
    return rows[0]?.left ?? undefined;
  }

  async listOrgs(): Promise<readonly string[]> {
    const { rows } = await sql<{ org_id: string }>`
      select distinct org_id from run
      where ended and session_id is null and root_id = run_id
        and ended_at < clock_timestamp() - interval '1 day'`.execute(this.#database.engine);
    return rows.map((row) => row.org_id);
  }

  async listPrunable(orgId: string, days: number, limit: number): Promise<readonly string[]> {
    const { rows } = await sql<{ run_id: string }>`
      select run_id from run
      where org_id = ${orgId} and ended and session_id is null and root_id = run_id
        and ended_at < clock_timestamp() - make_interval(days => ${days})
      order by ended_at limit ${limit}`.execute(this.#database.engine);
    return rows.map((row) => row.run_id);
  }

  async expire(days: number, portion: number): Promise<number> {
    const { numAffectedRows } = await sql`
      delete from run_receipt where run_id in (
        select run_id from run_receipt where ended_at < clock_timestamp() - make_interval(days => ${days})
        limit ${portion})`.execute(this.#database.engine);
    return Number(numAffectedRows ?? 0n);
  }
}
