import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { AgentDefinitionSchema } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import {
  type SessionEvent,
  SessionEventSchema,
  TurnErrorSchema,
  TurnState,
} from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { type CreateSessionResponse, SessionService, TurnSchema } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { type Kysely, type Selectable, sql, type Transaction } from "kysely";
import { AppError } from "../../runtime/errors/app-error.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { withIdempotency } from "../../runtime/postgres/idempotency.ts";
import type { Entry } from "../domain/entry.ts";
import { limitExceeded } from "../domain/limit.ts";
import { foldAll, type Run } from "../domain/run.ts";
import { shardOf } from "../domain/shard.ts";
import { runState } from "./append-store.ts";
import { decodeEntry } from "./entry-codec.ts";
import { assertNewestRow, goesOnBehindHead, readJournal } from "./journal-reader.ts";
import { toPinnedAgent } from "./proto-values.ts";
import type { OrchestratorSchema } from "./schema.ts";
import type {
  CreateSessionCall,
  DamagedTurn,
  SessionState,
  SessionStore,
  StoredRun,
  StoredSession,
  StoredView,
} from "./session-store.ts";

type Executor = Kysely<OrchestratorSchema> | Transaction<OrchestratorSchema>;
type SessionRow = Selectable<OrchestratorSchema["session"]> & { busy: boolean };
type RunRow = Pick<
  Selectable<OrchestratorSchema["run"]>,
  "run_id" | "ordinal" | "head" | "chain" | "ended" | "state" | "view"
> & {
  ordinal: number;
  goes_on_behind_head: boolean;
};

/** Sessions in PostgreSQL. */
export class PostgresSessionStore implements SessionStore {
  readonly #database: Database<OrchestratorSchema>;

  constructor(database: Database<OrchestratorSchema>) {
    this.#database = database;
  }

  create(call: CreateSessionCall, answer: (session: StoredSession) => CreateSessionResponse) {
    const { orgId, session, maxSessions, request } = call;
    return this.#database.asOrg(orgId, (transaction) =>
      withIdempotency(
        transaction,
        { orgId, method: SessionService.method.createSession, key: call.idempotencyKey, request },
        async () => {
          let count = await countSessions(transaction);
          if (count + uncountedSessions >= maxSessions) {
            // So near the limit, one creation of an org at a time makes it exact.
            await sql`select pg_advisory_xact_lock(hashtextextended(${`session:${orgId}`}, 0))`.execute(transaction);
            count = await countSessions(transaction);
          }
          if (count >= maxSessions) throw limitExceeded(orgId, "sessions", maxSessions);
          const row = await transaction
            .insertInto("session")
            .values({
              session_id: session.sessionId,
              org_id: orgId,
              shard: shardOf(session.sessionId),
              agent_id: session.agentId,
              title: session.title,
              labels: JSON.stringify(session.labels),
              deleted_at: null,
            })
            .returningAll()
            .executeTakeFirstOrThrow();
          const stored = toSession({ ...row, busy: false });
          return answer(stored);
        },
      ),
    );
  }

  find(orgId: string, sessionId: string) {
    return this.#database.asOrg(orgId, (transaction) => findSession(transaction, sessionId));
  }

  list(orgId: string, before: string | undefined, limit: number) {
    return this.#database.asOrg(orgId, async (transaction) => {
      let query = sessions(transaction);
      if (before !== undefined) query = query.where("session_id", "<", before);
      const rows = await query.orderBy("session_id", "desc").limit(limit).execute();
      return rows.map(toSession);
    });
  }

  findRun(orgId: string, sessionId: string, runId: string) {
    return this.#database.asOrg(orgId, async (transaction) => {
      if ((await findSession(transaction, sessionId)) === undefined) return undefined;
      const row = await runs(transaction, sessionId).where("run_id", "=", runId).executeTakeFirst();
      return row === undefined ? undefined : await toView(transaction, row);
    });
  }

  listRuns(orgId: string, sessionId: string, after: number, limit: number) {
    return this.#database.asOrg(orgId, async (transaction) => {
      const rows = await runs(transaction, sessionId)
        .where("ordinal", ">", after)
        .orderBy("ordinal")
        .limit(limit)
        .execute();
      const views: StoredView[] = [];
      for (const row of rows) views.push(await toView(transaction, row));
      return views;
    });
  }

  readEvents(orgId: string, sessionId: string, after: number, limit: number) {
    return this.#database.asOrg(orgId, async (transaction): Promise<readonly SessionEvent[] | undefined> => {
      const { rows } = await sql<{ body: Buffer | null }>`
        select e.body from session s
        left join lateral (
          select body, seq from session_event where session_id = s.session_id and seq > ${after}
          order by seq limit ${limit}) e on true
        where s.session_id = ${sessionId} and s.deleted_at is null order by e.seq`.execute(transaction);
      if (rows.length === 0) return undefined;
      return rows.flatMap(({ body }) => (body === null ? [] : [fromBinary(SessionEventSchema, body)]));
    });
  }

  async load(sessionId: string): Promise<SessionState | undefined> {
    const { engine } = this.#database;
    const session = await findSession(engine, sessionId);
    if (session === undefined) return undefined;
    const last = await engine
      .selectFrom("run")
      .select((query) => query.fn.max("ordinal").as("ordinal"))
      .where("session_id", "=", sessionId)
      .executeTakeFirst();
    const rows = await runs(engine, sessionId).where("state", "=", runState.running).orderBy("ordinal").execute();
    const open: StoredRun[] = [];
    const broken: DamagedTurn[] = [];
    for (const row of rows) {
      try {
        open.push(await toRun(engine, row));
      } catch (error) {
        if (!(error instanceof AppError) || error.reason !== "DATA_LOSS") throw error;
        broken.push({ runId: row.run_id, message: error.message });
      }
    }
    return { session, open, damaged: broken, lastOrdinal: last?.ordinal ?? 0 };
  }

  async parkDamaged(writer: bigint, runId: string): Promise<void> {
    // A turn has its view of its own, which stays as it is.
    await sql`select park_damaged(${writer}::bigint, ${runId}::uuid, ''::bytea)`.execute(this.#database.engine);
  }

  async loadEnded(sessionId: string, before: number, limit: number): Promise<readonly StoredRun[]> {
    const { engine } = this.#database;
    const rows = await runs(engine, sessionId)
      .where("ended", "=", true)
      .where("ordinal", "<", before)
      .orderBy("ordinal", "desc")
      .limit(limit)
      .execute();
    const ended: StoredRun[] = [];
    for (const row of rows) ended.push(await toRun(engine, row));
    return ended;
  }

  async listOpen(shards: readonly number[]): Promise<readonly string[]> {
    if (shards.length === 0) return [];
    const rows = await this.#database.engine
      .selectFrom("run")
      .select("session_id")
      .distinct()
      .where("shard", "in", shards)
      .where("state", "=", runState.running)
      .where("session_id", "is not", null)
      .execute();
    return rows.flatMap((row) => row.session_id ?? []);
  }

  async countOpenRuns(orgId: string): Promise<number> {
    const { count } = await this.#database.engine
      .selectFrom("run")
      .select((query) => query.fn.countAll<bigint>().as("count"))
      .where("org_id", "=", orgId)
      .where("ended", "=", false)
      .where("state", "<>", runState.parked)
      .where("session_id", "is not", null)
      .executeTakeFirstOrThrow();
    return Number(count);
  }

  async findAgent(orgId: string, agentId: string) {
    const row = await this.#database.engine
      .selectFrom("agent")
      .select(["definition", "revision", "digest"])
      .where("agent_id", "=", agentId)
      .where("org_id", "=", orgId)
      .executeTakeFirst();
    if (row === undefined) return undefined;
    const definition = fromBinary(AgentDefinitionSchema, row.definition);
    return toPinnedAgent(fromUuid("agt", agentId), row.revision, row.digest, definition);
  }
}

/** Creations that may be under way uncounted: more than all processes have connections for. */
const uncountedSessions = 64;

async function countSessions(transaction: Transaction<OrchestratorSchema>): Promise<number> {
  const { count } = await transaction
    .selectFrom("session")
    .select((query) => query.fn.countAll<bigint>().as("count"))
    .where("deleted_at", "is", null)
    .executeTakeFirstOrThrow();
  return Number(count);
}

function sessions(executor: Executor) {
  return executor
    .selectFrom("session")
    .selectAll()
    .select(
      sql<boolean>`exists (
        select 1 from run where run.session_id = session.session_id and not run.ended and run.state <> ${runState.parked}
      )`.as("busy"),
    )
    .where("deleted_at", "is", null);
}

async function findSession(executor: Executor, sessionId: string): Promise<StoredSession | undefined> {
  const row = await sessions(executor).where("session_id", "=", sessionId).executeTakeFirst();
  return row === undefined ? undefined : toSession(row);
}

function runs(executor: Executor, sessionId: string) {
  return executor
    .selectFrom("run")
    .select(["run_id", "head", "chain", "ended", "state", "view", goesOnBehindHead()])
    .select((query) => query.ref("ordinal").$notNull().as("ordinal"))
    .where("session_id", "=", sessionId)
    .where("ordinal", "is not", null);
}

function toSession(row: SessionRow): StoredSession {
  return {
    sessionId: row.session_id,
    orgId: row.org_id,
    shard: row.shard,
    agentId: row.agent_id,
    title: row.title,
    labels: row.labels as Record<string, string>,
    busy: row.busy,
    lastSeq: Number(row.last_seq),
    usage: {
      inputTokens: Number(row.input_tokens),
      outputTokens: Number(row.output_tokens),
      modelCalls: row.model_calls,
      toolCalls: row.tool_calls,
      durationMs: Number(row.duration_ms),
    },
    createdAtMs: row.created_at.getTime(),
    updatedAtMs: row.updated_at.getTime(),
  };
}

async function toView(executor: Executor, row: RunRow): Promise<StoredView> {
  if (row.state === runState.parked) return { ordinal: row.ordinal, view: parkedView(row.view), run: undefined };
  const run = row.ended ? undefined : (await toRun(executor, row)).run;
  return { ordinal: row.ordinal, view: row.view, run };
}

/** What readers see of a turn that is parked since its journal is damaged: what was asked, and that it failed. */
function parkedView(view: Uint8Array): Uint8Array {
  const turn = fromBinary(TurnSchema, view);
  turn.state = TurnState.FAILED;
  turn.error = create(TurnErrorSchema, { reason: Reason.DATA_LOSS, message: "the journal of the turn is damaged" });
  return toBinary(TurnSchema, turn);
}

/** Reads a run's journal, checks its chain up to the stored head, and folds it. */
async function toRun(executor: Executor, row: RunRow): Promise<StoredRun> {
  assertNewestRow(row);
  const entries: Entry[] = [];
  for await (const page of readJournal(executor, row)) {
    for (const { body } of page) entries.push(decodeEntry(body));
  }
  const run: Run = foldAll(fromUuid("run", row.run_id), entries);
  return { run, ordinal: row.ordinal, chain: row.chain, view: row.view };
}
