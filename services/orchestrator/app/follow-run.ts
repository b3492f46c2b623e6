import { AppError } from "../../runtime/errors/app-error.ts";
import { hasEnded } from "../store/append-store.ts";
import type { RunEntries, RunReadStore } from "../store/run-read-store.ts";
import type { EventFeed } from "./event-feed.ts";

/** How many entries are read at once. */
const pageSize = 200;

export interface FollowRunDeps {
  readonly runs: Pick<RunReadStore, "readEntries">;
  readonly feed: EventFeed;
  /** Aborts when the process stops. */
  readonly stopping: AbortSignal;
  /** How long nothing is sent at most, in milliseconds. */
  readonly keepaliveMs: number;
}

/** What to read, and from where. Ids are UUIDs as text. */
export interface RunPosition {
  readonly orgId: string;
  readonly runId: string;
  /** Exclusive. */
  readonly afterSeq: number;
}

/**
 * The journal of a run in order, in pages that may be empty: first what is
 * stored, then what is stored from now on. Undefined stands for a keepalive.
 * Ends behind the run's last entry, or when the signal aborts.
 *
 * @throws AppError RUN_NOT_FOUND, also when it is deleted meanwhile,
 * SHUTTING_DOWN when the process stops
 */
export async function* followRun(
  deps: FollowRunDeps,
  { orgId, runId, afterSeq }: RunPosition,
  signal: AbortSignal,
): AsyncGenerator<RunEntries | undefined> {
  const ending = AbortSignal.any([signal, deps.stopping]);
  // Opened before the first look, so that nothing falls between the two.
  const reader = deps.feed.open(runId);
  let last = afterSeq;
  try {
    for (;;) {
      for (let reading = true; reading && !ending.aborted; ) {
        const page = await deps.runs.readEntries(orgId, runId, last, pageSize);
        if (page === undefined) throw new AppError("RUN_NOT_FOUND", "no such run");
        yield page;
        last = page.entries.at(-1)?.seq ?? last;
        if (hasEnded(page.run.state) && last >= page.run.head) return;
        reading = page.entries.length === pageSize;
      }
      if (deps.stopping.aborted) throw new AppError("SHUTTING_DOWN", "the process is shutting down");
      if (signal.aborted) return;
      // Without news the table is read all the same: a notification may have got lost.
      if ((await reader.next(deps.keepaliveMs, ending)) === undefined && !ending.aborted) yield undefined;
    }
  } finally {
    reader.close();
  }
}
