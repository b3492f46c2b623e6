import { create, equals, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Principal, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { type RunError, RunErrorSchema } from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import { type ScheduleDefinition, ScheduleDefinitionSchema } from "@cadre/gen/cadre/orchestrator/v1/schedule_pb";
import { type Selectable, sql } from "kysely";
import type { Database } from "../../runtime/postgres/database.ts";
import { limitExceeded } from "../domain/limit.ts";
import { shardOf } from "../domain/shard.ts";
import type { OrchestratorSchema } from "./schema.ts";

/** A schedule as it is stored. Ids are UUIDs as text, times milliseconds since the epoch. */
export interface StoredSchedule {
  readonly scheduleId: string;
  readonly orgId: string;
  readonly shard: number;
  readonly definition: ScheduleDefinition;
  /** For whom its runs start. */
  readonly principal: Principal;
  /** Undefined while it is paused. */
  readonly nextDueMs: number | undefined;
  /** The time whose run waits for the end of an earlier one. */
  readonly queuedDueMs: number | undefined;
  /** The time of which a run may have been started already, and since when, by the database's clock. */
  readonly starting: { readonly dueMs: number; readonly since: string } | undefined;
  readonly lastDueMs: number | undefined;
  readonly lastRunId: string | undefined;
  readonly skipped: bigint;
  readonly lastError: RunError | undefined;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
}

/** A schedule to make or change. */
export interface SchedulePut {
  /** Taken if there is none of that name yet. */
  readonly scheduleId: string;
  readonly definition: ScheduleDefinition;
  readonly principal: Principal;
  readonly nextDueMs: number | undefined;
  readonly maxSchedules: number;
}

/** How a time was dealt with. */
export interface ScheduleOutcome {
  /** The next time; undefined leaves it. */
  readonly next: { readonly from: number; readonly to: number | undefined } | undefined;
  readonly queuedDueMs: number | undefined;
  /** The run that was started, and for which time. */
  readonly started: { readonly dueMs: number; readonly runUuid: string } | undefined;
  readonly skipped: number;
  readonly error: RunError | undefined;
}

/** The channel on which owners hear that schedules changed; its payload is the shard. */
export const scheduleChannel = "orchestrator_schedule";

/** Schedules of orgs, and when they are due. All throw UNAVAILABLE. */
export interface ScheduleStore {
  /**
   * Makes a schedule, or changes the one of that name. The same definition
   * changes nothing but whom it runs for. One transaction; tells the owner.
   *
   * @throws AppError LIMIT_EXCEEDED
   */
  put(orgId: string, put: SchedulePut): Promise<StoredSchedule>;
  find(orgId: string, scheduleId: string): Promise<StoredSchedule | undefined>;
  /** Schedules whose name comes after `after`, by name. */
  list(orgId: string, after: string, limit: number): Promise<readonly StoredSchedule[]>;
  /** False if there is none. */
  delete(orgId: string, scheduleId: string): Promise<boolean>;

  /** A schedule, for its owner. */
  load(scheduleId: string): Promise<StoredSchedule | undefined>;
  /** Schedules in the shards that are due, that were being started, or of which a time is queued. */
  listDue(shards: readonly number[], nowMs: number, limit: number): Promise<readonly string[]>;
  /** When one in the shards is due next after `nowMs`; undefined for never. */
  nextDue(shards: readonly number[], nowMs: number): Promise<number | undefined>;
  /** Runs of a schedule that have not ended, oldest first. */
  openRuns(scheduleId: string, limit: number): Promise<readonly string[]>;
  /** The run that was stored since a start began, other than the last one; undefined if there is none. */
  findStarted(schedule: StoredSchedule, since: string): Promise<string | undefined>;
  /** Notes that a run of a time is going to be started. False if it was dealt with, or another one is. */
  begin(scheduleId: string, dueMs: number): Promise<boolean>;
  /** Notes how a time was dealt with, and that nothing is being started any more. */
  finish(scheduleId: string, outcome: ScheduleOutcome): Promise<void>;
}

type Row = Selectable<OrchestratorSchema["schedule"]>;

/** Schedules in PostgreSQL. */
export class PostgresScheduleStore implements ScheduleStore {
  readonly #database: Database<OrchestratorSchema>;

  constructor(database: Database<OrchestratorSchema>) {
    this.#database = database;
  }

  put(orgId: string, { scheduleId, definition, principal, nextDueMs, maxSchedules }: SchedulePut) {
    return this.#database.asOrg(orgId, async (transaction) => {
      // One change of a name at a time, also of one that is not there yet.
      await sql`select pg_advisory_xact_lock(hashtextextended(${`schedule:${orgId}`}, 0))`.execute(transaction);
      const known = await transaction
        .selectFrom("schedule")
        .selectAll()
        .where("name", "=", definition.name)
        .executeTakeFirst();
      const person = Buffer.from(toBinary(PrincipalSchema, principal));
      const values = {
        definition: Buffer.from(toBinary(ScheduleDefinitionSchema, definition)),
        principal: person,
        next_due: toDate(nextDueMs),
      };
      let row: Row;
      if (known === undefined) {
        const { count } = await transaction
          .selectFrom("schedule")
          .select((query) => query.fn.countAll<bigint>().as("count"))
          .executeTakeFirstOrThrow();
        if (Number(count) >= maxSchedules) throw limitExceeded(orgId, "schedules", maxSchedules);
        const shard = shardOf(scheduleId);
        row = await transaction
          .insertInto("schedule")
          .values({ schedule_id: scheduleId, org_id: orgId, shard, name: definition.name, ...values })
          .returningAll()
          .executeTakeFirstOrThrow();
      } else {
        const same = equals(
          ScheduleDefinitionSchema,
          fromBinary(ScheduleDefinitionSchema, known.definition),
          definition,
        );
        if (same && Buffer.compare(known.principal, person) === 0) return toSchedule(known);
        row = await transaction
          .updateTable("schedule")
          .set(same ? { principal: person } : { ...values, queued_due: null, last_error: null })
          .set({ updated_at: sql`clock_timestamp()` })
          .where("schedule_id", "=", known.schedule_id)
          .returningAll()
          .executeTakeFirstOrThrow();
      }
      await sql`select pg_notify(${scheduleChannel}, ${String(row.shard)})`.execute(transaction);
      return toSchedule(row);
    });
  }

  find(orgId: string, scheduleId: string) {
    return this.#database.asOrg(orgId, async (transaction) => {
      const row = await transaction
        .selectFrom("schedule")
        .selectAll()
        .where("schedule_id", "=", scheduleId)
        .executeTakeFirst();
      return row === undefined ? undefined : toSchedule(row);
    });
  }

  list(orgId: string, after: string, limit: number) {
    return this.#database.asOrg(orgId, async (transaction) => {
      const rows = await transaction
        .selectFrom("schedule")
        .selectAll()
        .where("name", ">", after)
        .orderBy("name")
        .limit(limit)
        .execute();
      return rows.map(toSchedule);
    });
  }

  delete(orgId: string, scheduleId: string) {
    return this.#database.asOrg(orgId, async (transaction) => {
      const { numDeletedRows } = await transaction
        .deleteFrom("schedule")
        .where("schedule_id", "=", scheduleId)
        .executeTakeFirstOrThrow();
      return numDeletedRows > 0n;
    });
  }

  async load(scheduleId: string) {
    const row = await this.#database.engine
      .selectFrom("schedule")
      .selectAll()
      .where("schedule_id", "=", scheduleId)
      .executeTakeFirst();
    return row === undefined ? undefined : toSchedule(row);
  }

  async listDue(shards: readonly number[], nowMs: number, limit: number) {
    if (shards.length === 0) return [];
    const { rows } = await sql<{ schedule_id: string }>`
      (select schedule_id, next_due as due from schedule
        where shard = any(${shards}::smallint[]) and next_due <= ${new Date(nowMs)} order by next_due limit ${limit})
      union
      (select schedule_id, queued_due from schedule
        where shard = any(${shards}::smallint[]) and queued_due is not null limit ${limit})
      union
      (select schedule_id, starting_due from schedule
        where shard = any(${shards}::smallint[]) and starting_due is not null limit ${limit})
      order by due`.execute(this.#database.engine);
    return [...new Set(rows.map((row) => row.schedule_id))];
  }

  async nextDue(shards: readonly number[], nowMs: number) {
    if (shards.length === 0) return undefined;
    const { rows } = await sql<{ due: Date | null }>`
      select min(next_due) as due from schedule
      where shard = any(${shards}::smallint[]) and next_due > ${new Date(nowMs)}`.execute(this.#database.engine);
    return rows[0]?.due?.getTime();
  }

  async openRuns(scheduleId: string, limit: number) {
    const rows = await this.#database.engine
      .selectFrom("run")
      .select("run_id")
      .where("schedule_id", "=", scheduleId)
      .where("ended", "=", false)
      // Children are their parents' business.
      .where("parent_run_id", "is", null)
      .orderBy("run_id")
      .limit(limit)
      .execute();
    return rows.map((row) => row.run_id);
  }

  async findStarted({ scheduleId, lastRunId }: StoredSchedule, since: string) {
    const row = await this.#database.engine
      .selectFrom("run")
      .select("run_id")
      .where("schedule_id", "=", scheduleId)
      .where("created_at", ">=", sql<Date>`${since}::timestamptz`)
      .where("parent_run_id", "is", null)
      // What is left of the microseconds could take the one before for this one.
      .where("run_id", "is distinct from", lastRunId ?? null)
      .orderBy("run_id")
      .executeTakeFirst();
    return row?.run_id;
  }

  async begin(scheduleId: string, dueMs: number) {
    const due = new Date(dueMs);
    const { numUpdatedRows } = await this.#database.engine
      .updateTable("schedule")
      .set({ starting_due: due, starting_since: sql`clock_timestamp()` })
      .where("schedule_id", "=", scheduleId)
      .where("starting_due", "is", null)
      // Whoever was before may have dealt with it since it was read.
      .where((where) => where.or([where("next_due", "<=", due), where("queued_due", "=", due)]))
      .executeTakeFirstOrThrow();
    return numUpdatedRows > 0n;
  }

  async finish(scheduleId: string, { next, queuedDueMs, started, skipped, error }: ScheduleOutcome) {
    const update = this.#database.engine
      .updateTable("schedule")
      .set({
        starting_due: null,
        starting_since: null,
        queued_due: toDate(queuedDueMs),
        last_error: error === undefined ? null : Buffer.from(toBinary(RunErrorSchema, create(RunErrorSchema, error))),
      })
      .set(({ eb }) => ({ skipped: eb("skipped", "+", BigInt(skipped)) }))
      .where("schedule_id", "=", scheduleId);
    const moved =
      next === undefined
        ? update
        : // A definition that changed meanwhile has set another time.
          update.set({
            next_due: sql`case when next_due = ${new Date(next.from)} then ${toDate(next.to)}::timestamptz else next_due end`,
          });
    await (started === undefined
      ? moved
      : moved.set({ last_due: new Date(started.dueMs), last_run_id: started.runUuid })
    ).execute();
  }
}

function toDate(ms: number | undefined): Date | null {
  return ms === undefined ? null : new Date(ms);
}

function toSchedule(row: Row): StoredSchedule {
  return {
    scheduleId: row.schedule_id,
    orgId: row.org_id,
    shard: row.shard,
    definition: fromBinary(ScheduleDefinitionSchema, row.definition),
    principal: fromBinary(PrincipalSchema, row.principal),
    nextDueMs: row.next_due?.getTime(),
    queuedDueMs: row.queued_due?.getTime(),
    starting:
      row.starting_due === null || row.starting_since === null
        ? undefined
        : { dueMs: row.starting_due.getTime(), since: row.starting_since.toISOString() },
    lastDueMs: row.last_due?.getTime(),
    lastRunId: row.last_run_id ?? undefined,
    skipped: row.skipped,
    lastError: row.last_error === null ? undefined : fromBinary(RunErrorSchema, row.last_error),
    createdAtMs: row.created_at.getTime(),
    updatedAtMs: row.updated_at.getTime(),
  };
}
