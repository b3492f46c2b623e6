import { type QueryExecutorProvider, type RawBuilder, sql } from "kysely";
import { callLimits, cancelled, lost } from "../domain/call.ts";

/**
 * Takes calls from workers that are gone or have lost them: they are queued
 * again, under the same key; or they end, if they were cancelled or lost too
 * often, as calls that may still run.
 *
 * @param which a condition on `call`
 * @returns the calls
 */
export async function loseCalls(
  executor: QueryExecutorProvider,
  which: RawBuilder<unknown>,
): Promise<readonly string[]> {
  const ends = sql`(cancel_at is not null or losses + 1 >= ${callLimits.maxLosses})`;
  const { rows } = await sql<{ call_id: string }>`
    update call set
      state = case when ${ends} then 'ended' else 'queued' end,
      outcome = case when cancel_at is not null then ${JSON.stringify(cancelled)}::json
                     when ${ends} then ${JSON.stringify(lost)}::json end,
      progress = case when ${ends} then 'MAY_STILL_RUN' end,
      ended_at = case when ${ends} then clock_timestamp() end,
      losses = losses + 1, worker_id = null, handout_id = null, released = true, deadline_at = null,
      queued_at = clock_timestamp()
    where state = 'dispatched' and ${which}
    returning call_id`.execute(executor);
  return rows.map((row) => row.call_id);
}
