import { sql } from "kysely";
import type { Database } from "../../runtime/postgres/database.ts";
import { shardOf } from "../domain/shard.ts";
import type { OrchestratorSchema } from "./schema.ts";

/** A command that waits for the owner of its root's shard. */
export interface WaitingCommand {
  readonly commandId: string;
  /** The session or root run that it is for. */
  readonly rootId: string;
  readonly body: Uint8Array;
}

/** The channel on which owners hear of commands; its payload is the shard. */
export const inboxChannel = "orchestrator_inbox";

/** Commands on their way to the owner of a shard. Replies are stored by `append`. */
export interface InboxStore {
  /** Stores a command of an org and tells the owner. */
  put(orgId: string, command: WaitingCommand): Promise<void>;
  /** The reply to a command; undefined while there is none. */
  reply(commandId: string): Promise<Uint8Array | undefined>;
  /** Commands without a reply in these shards, oldest first. */
  waiting(shards: readonly number[], limit: number): Promise<readonly WaitingCommand[]>;
}

/** The inbox in PostgreSQL. */
export class PostgresInboxStore implements InboxStore {
  readonly #database: Database<OrchestratorSchema>;

  constructor(database: Database<OrchestratorSchema>) {
    this.#database = database;
  }

  async put(orgId: string, { commandId, rootId, body }: WaitingCommand): Promise<void> {
    const shard = shardOf(rootId);
    await this.#database.asOrg(orgId, async (transaction) => {
      await transaction
        .insertInto("inbox")
        .values({
          command_id: commandId,
          org_id: orgId,
          root_id: rootId,
          shard,
          body: Buffer.from(body),
          reply: null,
          answered_at: null,
        })
        .execute();
      await sql`select pg_notify(${inboxChannel}, ${String(shard)})`.execute(transaction);
    });
  }

  async reply(commandId: string): Promise<Uint8Array | undefined> {
    const row = await this.#database.engine
      .selectFrom("inbox")
      .select("reply")
      .where("command_id", "=", commandId)
      .executeTakeFirst();
    return row?.reply ?? undefined;
  }

  async waiting(shards: readonly number[], limit: number): Promise<readonly WaitingCommand[]> {
    if (shards.length === 0) return [];
    const rows = await this.#database.engine
      .selectFrom("inbox")
      .select(["command_id", "root_id", "body"])
      .where("shard", "in", shards)
      .where("answered_at", "is", null)
      .orderBy("command_id")
      .limit(limit)
      .execute();
    return rows.map((row) => ({ commandId: row.command_id, rootId: row.root_id, body: row.body }));
  }
}
