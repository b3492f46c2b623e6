import { BoundedMap } from "../../../runtime/identity/bounded-map.ts";

/** How many ends are remembered for those who ask a moment late. */
const maxRemembered = 4_096;

/** Tells whoever waits that a run ended, without a look into the store. */
export class RunEnds {
  readonly #waiting = new Map<string, Set<() => void>>();
  readonly #recent = new BoundedMap<string, true>(maxRemembered);

  /** A run ended, and that is committed. */
  ended(runUuid: string): void {
    this.#recent.set(runUuid, true);
    const waiting = this.#waiting.get(runUuid);
    this.#waiting.delete(runUuid);
    for (const wake of waiting ?? []) wake();
  }

  /**
   * Resolves when the run ended, or when the signal aborts; undefined if
   * nothing is known of it here.
   */
  wait(runUuid: string, isHere: boolean, signal: AbortSignal): Promise<void> | undefined {
    if (this.#recent.get(runUuid) === true) return Promise.resolve();
    if (!isHere) return undefined;
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(runUuid) ?? new Set();
      this.#waiting.set(runUuid, waiting);
      const done = (): void => {
        signal.removeEventListener("abort", done);
        waiting.delete(done);
        if (waiting.size === 0 && this.#waiting.get(runUuid) === waiting) this.#waiting.delete(runUuid);
        resolve();
      };
      waiting.add(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }
}
