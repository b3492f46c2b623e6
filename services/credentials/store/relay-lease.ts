import { type Kysely, sql } from "kysely";
import type { CredentialsSchema } from "./schema.ts";

/** How long a replica has it that does not renew it, by the database's clock, in milliseconds. */
const leaseMs = 3_000;

/**
 * Which replica relays. It spares the others the work and the bus repetitions;
 * order and completeness do not rest on it: whoever reads what follows the
 * relayed position, and publishes it from there without a hole, repeats at most.
 */
export interface RelayLease {
  /** Takes or renews it; whether this replica has it. */
  hold(): Promise<boolean>;
  /** Gives it up, so that another one need not wait for its end. */
  release(): Promise<void>;
}

/** @param holder unique for each start of the process */
export function createRelayLease(engine: Kysely<CredentialsSchema>, holder: string): RelayLease {
  return {
    async hold() {
      // Not worth a flush of the database's log: a lease that a crash undoes is taken anew.
      const { rows } = await sql`
        with unflushed as (select set_config('synchronous_commit', 'off', true))
        update relay set holder = ${holder}, held_until = clock_timestamp() + make_interval(secs => ${leaseMs / 1_000})
          from unflushed
         where holder = ${holder} or held_until < clock_timestamp() returning 1`.execute(engine);
      return rows.length === 1;
    },
    async release() {
      await sql`update relay set held_until = '-infinity' where holder = ${holder}`.execute(engine);
    },
  };
}
