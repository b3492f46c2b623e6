import { sql } from "kysely";
import pg from "pg";
import { AppError } from "../../runtime/errors/app-error.ts";
import { boundary } from "../../runtime/failpoint/failpoint.ts";
import { byteaArray } from "../../runtime/postgres/bytea-array.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { isOutcomeUnknown } from "../../runtime/postgres/database-error.ts";
import type { AppendOutcome, AppendStore, Batch } from "./append-store.ts";
import type { OrchestratorSchema } from "./schema.ts";

/** The longest text that PostgreSQL notifies with, less room for the writer. */
const maxNoteBytes = 7_900;

/** What stands in a note for sessions that did not fit. */
export const everySession = "*";

/** How a note names a session or command: the random end of its UUID. Two may share it; that costs a needless look. */
export function noteOf(uuid: string): string {
  return uuid.slice(-8);
}

/** The store of writers in PostgreSQL, by its function `append`. */
export class PostgresAppendStore implements AppendStore {
  readonly #database: Database<OrchestratorSchema>;

  constructor(database: Database<OrchestratorSchema>) {
    this.#database = database;
  }

  async append(writer: bigint, batch: Batch): Promise<AppendOutcome> {
    const { newRuns, entries, heads, sessions, events, replies, answered } = batch;
    const headOf = placesOf(heads.map((head) => head.runId));
    const sessionOf = placesOf(sessions.map((session) => session.sessionId));
    try {
      const statement = sql<{ pos_before: bigint; relayed_before: bigint }>`/* prepared: append */ select * from append(
        ${writer}::bigint, ${batch.number}::bigint,
        ${batch.shards.map((owned) => owned.shard)}::smallint[], ${batch.shards.map((owned) => owned.epoch)}::bigint[],
        ${newRuns.map((run) => run.runId)}::uuid[], ${newRuns.map((run) => run.rootId)}::uuid[],
        ${newRuns.map((run) => run.shard)}::smallint[], ${newRuns.map((run) => run.orgId ?? null)}::uuid[],
        ${newRuns.map((run) => run.sessionId ?? null)}::uuid[], ${newRuns.map((run) => run.parentRunId ?? null)}::uuid[],
        ${newRuns.map((run) => run.ordinal ?? null)}::int[], ${newRuns.map((run) => run.name)}::text[],
        ${newRuns.map((run) => JSON.stringify(run.labels))}::text[],
        ${newRuns.map((run) => run.scheduleId ?? null)}::uuid[], ${byteaArray(newRuns.map((run) => run.view))}::bytea[],
        ${entries.map((entry) => headOf(entry.runId))}::int[], ${entries.map((entry) => entry.seq)}::int[],
        ${entries.map((entry) => entry.kind)}::smallint[], ${byteaArray(entries.map((entry) => entry.body))}::bytea[],
        ${byteaArray(entries.map((entry) => entry.hash))}::bytea[],
        ${heads.map((head) => head.runId)}::uuid[], ${heads.map((head) => head.from)}::int[],
        ${byteaArray(heads.map((head) => head.previous))}::bytea[], ${heads.map((head) => head.to)}::int[],
        ${byteaArray(heads.map((head) => head.chain))}::bytea[], ${heads.map((head) => head.state)}::smallint[],
        ${heads.map((head) => (head.wakeAtMs === undefined ? null : new Date(head.wakeAtMs).toISOString()))}::timestamptz[],
        ${byteaArray(heads.map((head) => head.view ?? null))}::bytea[],
        ${sessions.map((session) => session.sessionId)}::uuid[], ${sessions.map((session) => session.from)}::bigint[],
        ${sessions.map((session) => session.to)}::bigint[], ${sessions.map((session) => session.usage.inputTokens)}::bigint[],
        ${sessions.map((session) => session.usage.outputTokens)}::bigint[],
        ${sessions.map((session) => session.usage.modelCalls)}::int[],
        ${sessions.map((session) => session.usage.toolCalls)}::int[],
        ${sessions.map((session) => Math.round(session.usage.durationMs))}::bigint[],
        ${sessions.map((session) => session.deleted)}::boolean[],
        ${events.map((event) => sessionOf(event.sessionId))}::int[], ${events.map((event) => event.seq)}::bigint[],
        ${byteaArray(events.map((event) => event.body))}::bytea[],
        ${replies.map((reply) => reply.commandId)}::uuid[], ${byteaArray(replies.map((reply) => reply.reply))}::bytea[],
        ${answered.map((command) => command.rootId)}::uuid[], ${answered.map((command) => command.method)}::text[],
        ${byteaArray(answered.map((command) => command.keyDigest))}::bytea[],
        ${byteaArray(answered.map((command) => command.requestDigest))}::bytea[],
        ${byteaArray(answered.map((command) => command.response))}::bytea[],
        ${batch.told ? note(batch) : null}::text)`;
      const { rows } = await boundary("journal.append", () => statement.execute(this.#database.engine));
      const row = rows[0];
      if (row === undefined) throw new TypeError("append returned nothing");
      return { type: "stored", unrelayed: Number(row.pos_before - row.relayed_before) + entries.length };
    } catch (cause) {
      return outcomeOf(cause);
    }
  }

  async position(writer: bigint) {
    const query = this.#database.engine.selectFrom("writer").select(["batch", "fenced"]).where("writer", "=", writer);
    return await boundary("journal.position", () => query.executeTakeFirst());
  }

  async heads(runIds: readonly string[]) {
    if (runIds.length === 0) return new Map<string, { head: number; chain: Uint8Array }>();
    const query = this.#database.engine
      .selectFrom("run")
      .select(["run_id", "head", "chain"])
      .where("run_id", "in", runIds);
    const rows = await boundary("journal.heads", () => query.execute());
    return new Map(rows.map((row) => [row.run_id, { head: row.head, chain: row.chain }]));
  }
}

function outcomeOf(cause: unknown): AppendOutcome {
  if (isOutcomeUnknown(cause)) return { type: "unknown", cause };
  if (cause instanceof AppError && cause.reason === "UNAVAILABLE") {
    return { type: "refused", why: "unavailable", cause };
  }
  if (cause instanceof pg.DatabaseError) {
    switch (cause.code) {
      case "CF001":
        return { type: "refused", why: "fenced", cause };
      case "CF003":
        return { type: "refused", why: "key-taken", cause };
      case "CF004":
        return { type: "repeated" };
      case "CF005":
        return { type: "refused", why: "expired", cause };
      default:
        return { type: "refused", why: "invalid", cause };
    }
  }
  return { type: "unknown", cause };
}

/** Where each of some ids stands in an array of PostgreSQL; null for any other, which has no place to be stored in. */
function placesOf(ids: readonly string[]): (id: string) => number | null {
  const places = new Map(ids.map((id, index) => [id, index + 1]));
  return (id) => places.get(id) ?? null;
}

/** Names the sessions with new events and the answered commands to the other processes. */
function note(batch: Batch): string {
  const names = new Set(batch.events.map((event) => `,${noteOf(event.sessionId)}`));
  for (const reply of batch.replies) names.add(`,!${noteOf(reply.commandId)}`);
  const text = [...names].join("");
  return text.length <= maxNoteBytes ? text : `,${everySession}`;
}
