import type { Database } from "../../runtime/postgres/database.ts";
import type { OrchestratorSchema } from "./schema.ts";

/** What an earlier command was answered with, and what it had asked. */
export interface StoredAnswer {
  readonly requestDigest: Uint8Array;
  readonly response: Uint8Array;
}

/** Finds the answers to commands with idempotency keys; `append` stores them with what the commands did. */
export interface AnswerStore {
  /** The answer to an earlier command of the org with that key. */
  find(orgUuid: string, method: string, keyDigest: Uint8Array): Promise<StoredAnswer | undefined>;
}

/** Answers in PostgreSQL. */
export class PostgresAnswerStore implements AnswerStore {
  readonly #database: Database<OrchestratorSchema>;

  constructor(database: Database<OrchestratorSchema>) {
    this.#database = database;
  }

  async find(orgUuid: string, method: string, keyDigest: Uint8Array): Promise<StoredAnswer | undefined> {
    const row = await this.#database.engine
      .selectFrom("answered")
      .select(["request_digest", "response"])
      .where("org_id", "=", orgUuid)
      .where("method", "=", method)
      .where("key_digest", "=", Buffer.from(keyDigest))
      .executeTakeFirst();
    return row === undefined ? undefined : { requestDigest: row.request_digest, response: row.response };
  }
}
