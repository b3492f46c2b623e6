import { setTimeout as delay } from "node:timers/promises";
import type { ToolsDeps } from "./deps.ts";

const sweepEveryMs = 1_000;
const pruneEveryMs = 600_000;
/** Batches of one round; what is left waits for the next. */
const maxBatches = 100;

/**
 * Does what the clock demands, every second, on every replica: ends leases,
 * calls and waits that are over, and forgets old calls. All of it may be done
 * twice, and is decided by the database's clock.
 *
 * @returns ends it, after the round under way
 */
export function keepTime(
  deps: Pick<ToolsDeps, "calls" | "workers" | "log">,
  options: { readonly retentionMs: number; readonly now?: () => number },
): () => Promise<void> {
  const stopping = new AbortController();
  const { signal } = stopping;
  const now = options.now ?? Date.now;
  async function run(): Promise<void> {
    let pruneAtMs = now();
    while (!signal.aborted) {
      try {
        await deps.workers.endExpired();
        await deps.calls.sweep();
        if (now() >= pruneAtMs) {
          for (let batch = 0; batch < maxBatches && !signal.aborted; batch++) {
            if ((await deps.calls.prune(new Date(now() - options.retentionMs))) === 0) break;
          }
          pruneAtMs = now() + pruneEveryMs;
        }
      } catch (error) {
        deps.log.warn({ err: error }, "what the clock demands of calls and workers could not be done now");
      }
      await delay(sweepEveryMs, undefined, { signal, ref: false }).catch(() => undefined); // stopped
    }
  }
  const running = run();
  return async () => {
    stopping.abort();
    await running;
  };
}
