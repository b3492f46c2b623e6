import { type QueryExecutorProvider, type RawBuilder, sql } from "kysely";
import { callTopic, type WakeUps, workerTopic } from "./wake-ups.ts";

/** A call that was handed to a worker, as the functions of the schema return it; null where a row tells another thing. */
export interface Given {
  readonly given_worker_id: string | null;
  readonly given_call_id: string | null;
}

/** Hands the queued calls of these definitions to workers that have places; see `dispatch_calls`. */
export function dispatchCalls(
  definitions: readonly { readonly toolId: string; readonly digest: string }[],
  replicaId: string,
): RawBuilder<Given> {
  return sql`/* prepared: tools_dispatch_calls */ select * from dispatch_calls(
    ${definitions.map(({ toolId }) => toolId)}, ${definitions.map(({ digest }) => digest)}, ${replicaId})`;
}

/** Hands a worker as many queued calls as it has places for, and wakes who waits for that. Returns how many. */
export async function fillWorker(executor: QueryExecutorProvider, workerId: string, wakeUps: WakeUps): Promise<number> {
  const { rows } = await sql<Given>`
    select ${workerId}::uuid as given_worker_id, call_id as given_call_id
      from fill_worker(${workerId}, 1000, ${wakeUps.replicaId}) call_id`.execute(executor);
  publishGiven(wakeUps, rows);
  return rows.length;
}

/** Wakes those of this replica who wait for calls that were handed out; the functions tell the other replicas. */
export function publishGiven(wakeUps: WakeUps, rows: readonly Given[]): void {
  for (const workerId of new Set(rows.map((row) => row.given_worker_id))) {
    if (workerId !== null) wakeUps.publish(workerTopic(workerId));
  }
  for (const { given_call_id: callId } of rows) if (callId !== null) wakeUps.publish(callTopic(callId));
}
