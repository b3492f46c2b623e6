import { Roster, type Seat } from "./roster.ts";

/** What is told that its time is over. Must not throw. */
export interface Expiring {
  expire(): void;
}

/** Where deadlines are set. */
export interface DeadlineTimer {
  /**
   * Calls `expire` when the deadline, in milliseconds since the epoch, has
   * passed. Returns the seat that it waits on: once it has left, it is not
   * called.
   */
  set(deadline: number, expiring: Expiring): Seat;
}

/** The longest that a timer of the platform can wait, 24 days: what is later is waited for that long. */
const maxTimerMs = 2 ** 31 - 1;

/**
 * One timer for the deadlines of many calls, nearly none of which ever passes:
 * to set one and take it back costs a tenth of what a timer of its own does.
 * They are rounded up, by less than a hundredth of the time that is left, so
 * that there are at most 128 timers for each doubling of it. They keep no
 * process alive.
 *
 * @param now milliseconds since the epoch
 */
export function createDeadlineTimer(now: () => number = Date.now): DeadlineTimer {
  const slots = new Map<number, Roster<Expiring>>();
  return {
    set(deadline, expiring) {
      const nowMs = now();
      const leftMs = Math.min(Math.max(1, deadline - nowMs), maxTimerMs);
      const grainMs = leftMs < 128 ? 1 : 2 ** (24 - Math.clz32(leftMs));
      const atMs = Math.ceil((nowMs + leftMs) / grainMs) * grainMs;
      const found = slots.get(atMs);
      if (found !== undefined) return found.join(expiring);
      const waiting = new Roster<Expiring>();
      const pass = (): void => {
        slots.delete(atMs);
        for (const one of waiting) one.expire();
      };
      setTimeout(pass, Math.min(atMs - nowMs, maxTimerMs)).unref();
      slots.set(atMs, waiting);
      return waiting.join(expiring);
    },
  };
}
