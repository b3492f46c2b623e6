import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "../log/log.ts";
import { describeError } from "./database-error.ts";

/** Rows that one statement removes, at most. */
export const pruneBatch = 1_000;
const everyMs = 600_000;
/** What is left then waits for the next round. */
const maxBatches = 100;

/**
 * Removes what is old every ten minutes until it is stopped, in batches of
 * 1,000, at most 100 of them in a row. Several processes may do so at once.
 *
 * @param what for the log, for example `idempotency records`
 * @param prune removes at most so many rows, and returns how many
 * @returns ends it, after the batch under way
 */
export function startPruning(
  what: string,
  prune: (limit: number) => Promise<number>,
  log: Logger,
): () => Promise<void> {
  const stopping = new AbortController();
  const { signal } = stopping;
  async function run(): Promise<void> {
    while (!signal.aborted) {
      try {
        for (let batch = 0; batch < maxBatches && !signal.aborted; batch++) {
          if ((await prune(pruneBatch)) < pruneBatch) break;
        }
      } catch (error) {
        log.warn(describeError(error), `cannot prune ${what} now`);
      }
      await delay(everyMs, undefined, { signal, ref: false }).catch(() => undefined); // stopped
    }
  }
  const running = run();
  return async () => {
    stopping.abort();
    await running;
  };
}
