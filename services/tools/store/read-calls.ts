import { type QueryExecutorProvider, sql } from "kysely";
import type { CallState, Outcome, Progress } from "../domain/call.ts";
import type { CallView } from "./call-store.ts";
import { silentAt } from "./silence.ts";

/** Parts of output read at once. */
const maxOutputParts = 64;

/** A call that is asked for, and the output that its reader has. */
export interface ReadCall {
  readonly callId: string;
  readonly afterPosition: number;
}

interface ViewRow {
  readonly call_id: string;
  readonly state: CallState;
  readonly attempt: number;
  readonly worker_name: string;
  readonly outcome: Outcome | null;
  readonly progress: Progress | null;
  readonly output_count: number;
  readonly due_in_ms: number;
}

/** Calls of an org as they are now, in the order asked for; `undefined` for one that is not there. */
export async function readCalls(
  transaction: QueryExecutorProvider,
  calls: readonly ReadCall[],
  workerWaitMs: number,
): Promise<readonly (CallView | undefined)[]> {
  const { rows } = await sql<ViewRow>`/* prepared: tools_read_calls */
    select call_id, state, attempt, worker_name, outcome, progress, output_count,
      1000 * extract(epoch from least(
        case state
          when 'dispatched' then least(deadline_at, cancel_deadline, ${silentAt})
          when 'queued' then case
            when queued_at + make_interval(secs => ${workerWaitMs} / 1000.0) > clock_timestamp()
            then queued_at + make_interval(secs => ${workerWaitMs} / 1000.0)
            else queued_at + make_interval(secs => timeout_ms / 1000.0) end
        end,
        clock_timestamp() + interval '1 minute'
      ) - clock_timestamp())::float8 as due_in_ms
      from call where call_id = any(${calls.map(({ callId }) => callId)}::uuid[])`.execute(transaction);
  const byId = new Map(rows.map((row) => [row.call_id, row]));
  const views: (CallView | undefined)[] = [];
  for (const { callId, afterPosition } of calls) {
    const row = byId.get(callId);
    views.push(row === undefined ? undefined : await toView(transaction, row, afterPosition));
  }
  return views;
}

async function toView(transaction: QueryExecutorProvider, row: ViewRow, afterPosition: number): Promise<CallView> {
  const output = row.output_count > afterPosition ? await readOutput(transaction, row.call_id, afterPosition) : [];
  const position = output.at(-1)?.position ?? afterPosition;
  return {
    state: row.state,
    attempt: row.attempt,
    workerName: row.worker_name,
    outcome: row.outcome ?? undefined,
    progress: row.progress ?? undefined,
    output: output.map(({ text }) => text.toString("utf8")),
    position,
    hasMore: row.output_count > position,
    dueInMs: Math.max(0, row.due_in_ms),
  };
}

async function readOutput(
  transaction: QueryExecutorProvider,
  callId: string,
  afterPosition: number,
): Promise<readonly { readonly position: number; readonly text: Buffer }[]> {
  const { rows } = await sql<{ position: number; text: Buffer }>`
    select position, text from call_output where call_id = ${callId} and position > ${afterPosition}
     order by position limit ${maxOutputParts}`.execute(transaction);
  return rows;
}
