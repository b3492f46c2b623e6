import { type QueryExecutorProvider, type RawBuilder, sql } from "kysely";
import { cancelled, type Outcome } from "../domain/call.ts";
import type { Report } from "./call-store.ts";
import type { Given } from "./fill-workers.ts";
import { loseCalls } from "./lose-calls.ts";
import { type Announce, callTopic } from "./wake-ups.ts";

/** A worker's report of how a call ended; `cancelled` for a handler that stopped. */
export interface EndReport {
  readonly report: Report;
  readonly outcome: Outcome | "cancelled";
  /** SHA-256 of the report, by which a repetition is known. */
  readonly reportHash: Uint8Array;
}

/** What a group of reports changed. */
export interface Ended extends Given {
  readonly ended_call_id: string | null;
  readonly ended_handout_id: string | null;
}

/** Ends those of an org's calls that are still their worker's, and hands the places on; see `end_calls`. */
export function endHeld(
  reports: readonly (EndReport & { readonly outcome: Outcome })[],
  replicaId: string,
): RawBuilder<Ended> {
  return sql`/* prepared: tools_end_calls */ select * from end_calls(
    ${reports.map(({ report }) => report.workerId)}, ${reports.map(({ report }) => report.subject)},
    ${reports.map(({ report }) => report.handoutId)}, ${reports.map(({ outcome }) => JSON.stringify(outcome))},
    ${reports.map(({ reportHash }) => Buffer.from(reportHash))}, ${replicaId})`;
}

/**
 * Takes a report of a call that may have ended before, or whose handler was
 * stopped. Returns whether the report counts, or is the one that did.
 */
export async function endAlone(
  transaction: QueryExecutorProvider,
  { report, outcome, reportHash }: EndReport,
  announce: Announce,
): Promise<boolean> {
  const call = await lockHandout(transaction, report);
  if (call === undefined) return false;
  if (call.state === "ended") {
    if (call.released) return call.report_hash?.equals(reportHash) === true;
    // It ended without its handler, which has stopped now.
    await sql`update call set released = true,
        progress = case when progress = 'MAY_STILL_RUN' then 'PARTIAL' else progress end
      where call_id = ${call.call_id}`.execute(transaction);
    announce(callTopic(call.call_id));
    return false;
  }
  if (outcome === "cancelled" && call.cancel_at === null) {
    // The worker gave it back, for example because it was stopped itself.
    await loseCalls(transaction, sql`call_id = ${call.call_id}`);
  } else {
    const stored = outcome === "cancelled" ? cancelled : outcome;
    await sql`update call set
        state = 'ended', released = true, outcome = ${JSON.stringify(stored)}::json,
        progress = ${outcome === "cancelled" ? "PARTIAL" : "DONE"}, report_hash = ${Buffer.from(reportHash)},
        ended_at = clock_timestamp()
      where call_id = ${call.call_id}`.execute(transaction);
  }
  announce(callTopic(call.call_id));
  return true;
}

interface HandoutRow {
  readonly call_id: string;
  readonly state: "queued" | "dispatched" | "ended" | "lapsed";
  readonly released: boolean;
  readonly cancel_at: Date | null;
  readonly report_hash: Buffer | null;
  readonly report_seq: bigint;
  readonly output_count: number;
  readonly output_bytes: number;
}

/** The call that a hand-out is of, locked, if it is the worker's and the worker the principal's. */
export async function lockHandout(transaction: QueryExecutorProvider, report: Report): Promise<HandoutRow | undefined> {
  const { rows } = await sql<HandoutRow>`
    select call_id, state, released, cancel_at, report_hash, report_seq, output_count, output_bytes
      from call
     where handout_id = ${report.handoutId} and worker_id = ${report.workerId}
       and exists (select from worker w where w.worker_id = call.worker_id and w.subject = ${report.subject})
       for update`.execute(transaction);
  return rows[0];
}
