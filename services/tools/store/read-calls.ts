import { sql } from "kysely";
import type { Database } from "../../runtime/postgres/database.ts";
import type { CallState, Outcome, Progress } from "../domain/call.ts";
import type { CallView } from "./call-store.ts";
import type { ToolsSchema } from "./schema.ts";
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
  database: Database<ToolsSchema>,
  orgId: string,
  calls: readonly ReadCall[],
  workerWaitMs: number,
): Promise<readonly (CallView | undefined)[]> {
  const statement = sql<ViewRow>`/* prepared: tools_read_calls */
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
      from call where call_id = any(${calls.map(({ callId }) => callId)}::uuid[])`.compile(database.engine);
  const [rows] = await database.batchAsOrg(orgId, [statement]);
  const byId = new Map(rows.map((row) => [row.call_id, row]));
  return await Promise.all(
    calls.map(async ({ callId, afterPosition }) => {
      const row = byId.get(callId);
      if (row === undefined) return undefined;
      const output = row.output_count > afterPosition ? await readOutput(database, orgId, callId, afterPosition) : [];
      return toView(row, output, afterPosition);
    }),
  );
}

interface OutputRow {
  readonly position: number;
  readonly text: Buffer;
}

function toView(row: ViewRow, output: readonly OutputRow[], afterPosition: number): CallView {
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
  database: Database<ToolsSchema>,
  orgId: string,
  callId: string,
  afterPosition: number,
): Promise<readonly OutputRow[]> {
  const statement = sql<OutputRow>`
    select position, text from call_output where call_id = ${callId} and position > ${afterPosition}
     order by position limit ${maxOutputParts}`.compile(database.engine);
  const [rows] = await database.batchAsOrg(orgId, [statement]);
  return rows;
}
