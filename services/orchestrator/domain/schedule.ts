/** What a schedule does with a time that has come. */
import { lastTime, nextTime, type ScheduleTimes } from "./schedule-times.ts";

/** What to do when a run is due and an earlier one of the schedule is open. */
export type Overlap = "skip" | "queue" | "allow" | "cancel";

/** What to do with times that passed while no process ran. */
export type CatchUp =
  | { readonly type: "none" }
  | { readonly type: "last" }
  | { readonly type: "all"; readonly windowMs: number };

/** A time that is this late is on time all the same, in milliseconds: processes change, databases restart. */
export const onTimeMs = 60_000;

/**
 * The time to deal with, of those that came since `dueMs`; undefined if none of
 * them is. Milliseconds since the epoch.
 *
 * @param dueMs a time of the schedule
 */
export function timeToStart(times: ScheduleTimes, catchUp: CatchUp, dueMs: number, nowMs: number): number | undefined {
  if (dueMs > nowMs) return undefined;
  if (catchUp.type === "last") return lastTime(times, nowMs);
  const windowMs = catchUp.type === "none" ? onTimeMs : Math.max(catchUp.windowMs, onTimeMs);
  const fromMs = nowMs - windowMs;
  const found = dueMs >= fromMs ? dueMs : nextTime(times, fromMs - 1);
  return found === undefined || found > nowMs ? undefined : found;
}

/** What becomes of a time: its run starts, waits, or is left out. */
export type Overlapped = "start" | "queue" | "skip" | "cancel-and-start";

/** What becomes of a time, by the runs of the schedule that are open. */
export function overlapOf(overlap: Overlap, openRuns: number, queued: boolean): Overlapped {
  if (openRuns === 0 && !queued) return "start";
  switch (overlap) {
    case "allow":
      return "start";
    case "cancel":
      return "cancel-and-start";
    case "skip":
      return "skip";
    case "queue":
      return queued ? "skip" : "queue";
  }
}
