/**
 * The times of a schedule. Invariants:
 *
 * 1. A civil time that its zone's clock leaves out counts at the next one that
 *    exists; with another one that counts there, it is one time.
 * 2. A civil time that the clock shows twice counts when it comes first.
 * 3. Whoever asks gets the same times: nothing depends on what ran before.
 */
import { type Cron, matchesDay } from "./cron.ts";
import { dayClock, instantOf, type Zone } from "./zone.ts";

/** When something is due. */
export interface ScheduleTimes {
  readonly cron: Cron;
  readonly zone: Zone;
}

const minuteMs = 60_000;
const dayMs = 24 * 3_600_000;
/** The 29th of February is away eight years at most. */
const maxDays = 8 * 366 + 2;

/** The first time after an instant; undefined if none comes in eight years. Milliseconds since the epoch. */
export function nextTime(times: ScheduleTimes, afterMs: number): number | undefined {
  // One day back: a gap of the clock may carry yesterday's times into today.
  let day = civilDay(times.zone, afterMs) - dayMs;
  for (let looked = 0; looked < maxDays; looked += 1, day += dayMs) {
    const found = timesOfDay(times, day).find((time) => time > afterMs);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The last time at or before an instant; undefined if there was none in eight years. */
export function lastTime(times: ScheduleTimes, atMs: number): number | undefined {
  let day = civilDay(times.zone, atMs);
  for (let looked = 0; looked < maxDays; looked += 1, day -= dayMs) {
    const found = timesOfDay(times, day).findLast((time) => time <= atMs);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The next `count` times after an instant, or as many as there are. */
export function nextTimes(times: ScheduleTimes, afterMs: number, count: number): readonly number[] {
  const found: number[] = [];
  for (let last: number | undefined = afterMs; found.length < count; ) {
    last = nextTime(times, last);
    if (last === undefined) break;
    found.push(last);
  }
  return found;
}

/** The start of the civil day of an instant, in civil milliseconds. */
function civilDay(zone: Zone, epochMs: number): number {
  return Math.floor((epochMs + zone.offsetAt(epochMs)) / dayMs) * dayMs;
}

/** The instants of a civil day's times, ascending, each once. */
function timesOfDay({ cron, zone }: ScheduleTimes, day: number): readonly number[] {
  const date = new Date(day);
  if (!matchesDay(cron, date.getUTCMonth() + 1, date.getUTCDate(), date.getUTCDay())) return [];
  const clock = dayClock(zone, day);
  const instants = new Set<number>();
  for (const hour of cron.hours) {
    for (const minute of cron.minutes) instants.add(instantOf(clock, day + (hour * 60 + minute) * minuteMs));
  }
  return [...instants].sort((a, b) => a - b);
}
