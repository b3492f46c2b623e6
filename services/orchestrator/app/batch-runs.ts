import type { AppError } from "../../runtime/errors/app-error.ts";
import { toAppError } from "../../runtime/errors/failure.ts";
import { type RunState, runState } from "../store/append-store.ts";
import type { RunReadStore, RunRow, RunSelection } from "../store/run-read-store.ts";

/** What to do with many runs. */
export type BatchAction = "cancel" | "resume" | "delete";

export interface BatchRunsDeps {
  readonly runs: Pick<RunReadStore, "list" | "count">;
  /** Deals with one run. Throws AppError why it cannot be dealt with. */
  readonly act: (run: RunRow) => Promise<void>;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

/** What is asked for. Ids are UUIDs as text. */
export interface Batch {
  readonly orgId: string;
  readonly action: BatchAction;
  readonly selection: RunSelection;
  readonly dryRun: boolean;
}

/** How far a batch is. */
export interface BatchProgress {
  /** The run that was dealt with last; undefined in the last message. */
  readonly runId: string | undefined;
  readonly error: AppError | undefined;
  readonly done: number;
  readonly failed: number;
  readonly total: number;
}

const pageSize = 200;
/** How many runs are dealt with at once: what the committer gathers into one commit, without filling its queue. */
const atOnce = 16;
const progressMs = 200;
const progressRuns = 100;

/** The states to which an action can apply. */
const states: Readonly<Record<BatchAction, readonly RunState[]>> = {
  cancel: [runState.running, runState.waiting, runState.parked],
  resume: [runState.parked],
  delete: [runState.succeeded, runState.failed, runState.cancelled],
};

/** Why the rest of a batch would fare no better. */
const hopeless: ReadonlySet<string> = new Set(["SHUTTING_DOWN", "CANCELLED", "DEADLINE_EXCEEDED", "AUTHZ_UNAVAILABLE"]);

/**
 * Deals with the runs of a selection, page by page, newest first, and tells how
 * far it is. A run that cannot be dealt with is told and passed over. Ends when
 * the signal aborts or the iteration is left, behind what is under way.
 *
 * @throws AppError what a whole batch fails by, such as SHUTTING_DOWN
 */
export async function* batchRuns(
  deps: BatchRunsDeps,
  { orgId, action, selection, dryRun }: Batch,
  signal: AbortSignal,
): AsyncGenerator<BatchProgress> {
  const applicable = applicableTo(action, selection);
  if (applicable === undefined) {
    yield { runId: undefined, error: undefined, done: 0, failed: 0, total: 0 };
    return;
  }
  const total = await deps.runs.count(orgId, applicable);
  let done = 0;
  let failed = 0;
  let told = { done: 0, atMs: deps.now() };
  for (let before: string | undefined, more = true; more; ) {
    const page = await deps.runs.list(orgId, applicable, before, pageSize);
    more = page.length === pageSize;
    before = page.at(-1)?.runId;
    for (let index = 0; index < page.length; index += atOnce) {
      if (signal.aborted) return;
      const portion = page.slice(index, index + atOnce);
      const failures = dryRun
        ? portion.map(() => undefined)
        : await Promise.all(portion.map((run) => tryOne(deps, run)));
      for (const [position, run] of portion.entries()) {
        const error = failures[position];
        done += 1;
        if (error === "passed over") continue;
        if (error !== undefined) failed += 1;
        const isDue = done - told.done >= progressRuns || deps.now() - told.atMs >= progressMs;
        if (!dryRun && error === undefined && !isDue) continue;
        told = { done, atMs: deps.now() };
        yield { runId: run.runId, error, done, failed, total: Math.max(total, done) };
      }
    }
  }
  yield { runId: undefined, error: undefined, done, failed, total: Math.max(total, done) };
}

/** The selection without the states to which the action cannot apply; undefined if none is left. */
function applicableTo(action: BatchAction, selection: RunSelection): RunSelection | undefined {
  const wanted = selection.states.length === 0 ? states[action] : selection.states;
  const left = states[action].filter((state) => wanted.includes(state));
  return left.length === 0 ? undefined : { ...selection, states: left };
}

async function tryOne(deps: BatchRunsDeps, run: RunRow): Promise<AppError | "passed over" | undefined> {
  try {
    await deps.act(run);
    return undefined;
  } catch (thrown) {
    const error = toAppError(thrown);
    if (hopeless.has(error.reason)) throw error;
    // Somebody else was faster, which is what was asked for.
    if (error.reason === "RUN_ENDED" || error.reason === "RUN_NOT_FOUND" || error.reason === "RUN_NOT_PARKED") {
      return "passed over";
    }
    return error;
  }
}
