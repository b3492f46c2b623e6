import type { CompiledQuery, Kysely, Transaction } from "kysely";
import type { Dependency } from "../platform/platform.ts";

/**
 * A service's own schema in PostgreSQL, by two roles.
 *
 * 1. `asOrg` runs as `cadre_<service>_app`, which row-level security binds to
 *    one org: every table with an `org_id` shows and takes that org's rows only.
 * 2. `engine` runs as `cadre_<service>_engine`, which sees all orgs; only code
 *    that takes the org from stored rows uses it.
 */
export interface Database<Schema> {
  /**
   * Runs one transaction for an org and commits it. Rolls back if `work`
   * throws. Retries nothing.
   *
   * @param orgId the org's UUID
   * @throws AppError UNAVAILABLE if no connection can be had in time
   */
  asOrg<T>(orgId: string, work: (transaction: Transaction<Schema>) => Promise<T>): Promise<T>;
  /**
   * Runs statements in one transaction for an org, as `asOrg`, and sends them
   * and the commit in one message: none may need another's answer. Compile them
   * with `engine`.
   *
   * @returns the rows of each
   */
  batchAsOrg<Rows extends readonly unknown[]>(
    orgId: string,
    statements: { readonly [Index in keyof Rows]: CompiledQuery<Rows[Index]> },
  ): Promise<{ readonly [Index in keyof Rows]: readonly Rows[Index][] }>;
  /** The engine's queries and transactions. */
  readonly engine: Kysely<Schema>;
  /**
   * Calls `onNotify` for each notification on a channel of the service, on a
   * connection of its own that is rebuilt when it breaks. `onConnect` is called
   * after each (re)connect: what was notified meanwhile is lost, so read again.
   * Returns a function that ends the subscription.
   */
  listen(channel: string, onNotify: (payload: string) => void, onConnect: () => void): Promise<() => Promise<void>>;
  /** `postgres`, for readiness. */
  readonly dependency: Dependency;
  close(): Promise<void>;
}
