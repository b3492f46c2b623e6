import { type Kysely, type QueryExecutorProvider, sql, type Transaction } from "kysely";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { RequestContext } from "../../runtime/rpc/request-context.ts";
import type { CredentialsSchema } from "./schema.ts";

/** The channel on which replicas hear that there is a change. */
export const changeChannel = "credentials_change";

/** Something that changed, before it has its number. */
export type Change =
  | { readonly kind: "credential_revoked"; readonly orgId: string; readonly subject: string; readonly tokenId: string }
  | { readonly kind: "limits_changed"; readonly orgId: string };

/** A change and its number. */
export interface NumberedChange {
  readonly revision: bigint;
  readonly change: Change;
}

/** Where changes are numbered and kept, and where the replicas of this service know of each other. */
export interface ChangeStore {
  /**
   * Everything after a revision, in order, and the newest revision, from one
   * snapshot that is taken after the call began.
   */
  readAfter(revision: bigint): Promise<{ readonly newest: bigint; readonly changes: readonly NumberedChange[] }>;
  /** Says that this process tells watchers of changes; committed when it resolves. */
  announce(processId: string): Promise<void>;
  /** Takes that back. */
  withdraw(processId: string): Promise<void>;
  /** How many other processes announced themselves in the last `withinMs` milliseconds, by the database's clock. */
  countOthers(processId: string, withinMs: number): Promise<number>;
}

/** A watcher that is further behind begins anew. What was not relayed is kept in any case. */
const keptChanges = 10_000;

/**
 * Numbers a change within a transaction and tells all replicas when it commits.
 * Holds the counter until then, so that numbers are in the order of commits
 * without gaps: take it last.
 */
export async function appendChange(
  transaction: Transaction<CredentialsSchema>,
  change: Change,
  { requestId, traceparent }: Pick<RequestContext, "requestId" | "traceparent">,
): Promise<bigint> {
  const { value } = await transaction
    .updateTable("revision")
    .set({ value: sql<bigint>`value + 1` })
    .returning("value")
    .executeTakeFirstOrThrow();
  await transaction
    .insertInto("change")
    .values({
      revision: value,
      kind: change.kind,
      org_id: change.orgId,
      subject: change.kind === "credential_revoked" ? change.subject : "",
      token_id: change.kind === "credential_revoked" ? change.tokenId : "",
      event_id: toUuid("evt", newId("evt")),
      request_id: requestId,
      traceparent,
    })
    .execute();
  await transaction
    .deleteFrom("change")
    .where("revision", "<", value - BigInt(keptChanges))
    .where("revision", "<=", (relay) => relay.selectFrom("relay").select("relayed_revision"))
    .execute();
  await sql`select pg_notify(${changeChannel}, '')`.execute(transaction);
  return value;
}

/** The newest revision, in the snapshot of the query. */
export async function readRevision(db: QueryExecutorProvider): Promise<bigint> {
  const { rows } = await sql<{ value: bigint }>`select value from revision`.execute(db);
  return rows[0]?.value ?? 0n;
}

/** The changes in PostgreSQL. */
export function createPostgresChangeStore(engine: Kysely<CredentialsSchema>): ChangeStore {
  return {
    async readAfter(revision) {
      const rows = await engine
        .selectFrom("revision")
        .leftJoin("change", (join) => join.on("change.revision", ">", revision))
        .select(["revision.value as newest", "change.revision", "kind", "org_id", "subject", "token_id"])
        .orderBy("change.revision")
        .execute();
      const changes = rows.flatMap((row) =>
        row.revision === null ? [] : [{ revision: row.revision, change: toChange(row) }],
      );
      return { newest: rows[0]?.newest ?? 0n, changes };
    },
    announce: (processId) =>
      engine.transaction().execute(async (transaction) => {
        // Once a second and for ever: not worth a flush of the log. What a crash
        // of the database loses is far less than the time that a row counts for.
        await sql`set local synchronous_commit = off`.execute(transaction);
        await transaction
          .insertInto("replica")
          .values({ process_id: processId })
          .onConflict((conflict) =>
            conflict.column("process_id").doUpdateSet({ seen_at: sql<Date>`clock_timestamp()` }),
          )
          .execute();
        await sql`delete from replica where seen_at < clock_timestamp() - interval '1 hour'`.execute(transaction);
      }),
    async withdraw(processId) {
      await engine.deleteFrom("replica").where("process_id", "=", processId).execute();
    },
    async countOthers(processId, withinMs) {
      const { rows } = await sql<{ others: bigint }>`
        select count(*) as others from replica
         where process_id <> ${processId}
           and seen_at > clock_timestamp() - make_interval(secs => ${withinMs / 1_000})`.execute(engine);
      return Number(rows[0]?.others ?? 0n);
    },
  };
}

interface ChangeRow {
  readonly kind: "credential_revoked" | "limits_changed" | null;
  readonly org_id: string | null;
  readonly subject: string | null;
  readonly token_id: string | null;
}

function toChange(row: ChangeRow): Change {
  const orgId = row.org_id ?? "";
  return row.kind === "credential_revoked"
    ? { kind: row.kind, orgId, subject: row.subject ?? "", tokenId: row.token_id ?? "" }
    : { kind: "limits_changed", orgId };
}
