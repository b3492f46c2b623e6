import { setTimeout as delay } from "node:timers/promises";
import type { BusEvent } from "../../services/runtime/bus/event-bus.ts";
import { quantile } from "../report.ts";
import type { SteadyContestant } from "./cadre.ts";

/** How long events took from the commit of their outbox to the end of their handler. */
export interface Lag {
  /** Events a second that were really written. */
  readonly rate: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export interface LagOptions {
  readonly rate: number;
  readonly seconds: number;
  readonly makeEvents: (count: number) => Promise<readonly BusEvent[]>;
}

/** Transactions a second, as of many requests that share commits. */
const commitsPerSecond = 40;

/** Writes events at a steady rate, by the clock and not by how fast they are taken, and times each. */
export async function measureLag(contestant: SteadyContestant, options: LagOptions): Promise<Lag> {
  const size = options.rate / commitsPerSecond;
  const batches = options.seconds * commitsPerSecond;
  const all = await options.makeEvents(size * batches);
  const writtenAtMs = new Map<string, number>();
  const lags: number[] = [];
  const { promise: done, resolve } = Promise.withResolvers<void>();
  const stop = contestant.follow((eventId) => {
    const at = writtenAtMs.get(eventId);
    // Seen again; each counts once.
    if (at === undefined || !writtenAtMs.delete(eventId)) return;
    lags.push(performance.now() - at);
    if (lags.length === all.length) resolve();
  });
  const startedMs = performance.now();
  for (let batch = 0; batch < batches; batch++) {
    await delay(Math.max(0, startedMs + (batch * 1_000) / commitsPerSecond - performance.now()));
    const events = all.slice(batch * size, (batch + 1) * size);
    const atMs = performance.now();
    for (const event of events) writtenAtMs.set(contestant.idOf(event), atMs);
    await contestant.write(events);
  }
  const rate = all.length / ((performance.now() - startedMs) / 1_000);
  await done;
  await stop();
  return { rate, p50Ms: quantile(lags, 0.5), p99Ms: quantile(lags, 0.99), maxMs: quantile(lags, 1) };
}
