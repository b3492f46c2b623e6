import { BoundedMap } from "../../../runtime/cache/bounded-map.ts";
import type { GraphEnd } from "../../domain/entry.ts";

/** How a run ended. */
export interface EndedRun {
  readonly end: GraphEnd;
  /** How many entries its journal has. */
  readonly head: number;
  readonly endedAtMs: number;
}

/** How many ends are remembered for those who ask a moment late. */
const maxRemembered = 1_024;

/** Tells whoever waits how a run ended, without a look into the store. */
export class RunEnds {
  readonly #waiting = new Map<string, Set<(ended: EndedRun | undefined) => void>>();
  readonly #recent = new BoundedMap<string, EndedRun>(maxRemembered);

  /** A run ended, and that is committed. */
  ended(runUuid: string, ended: EndedRun): void {
    this.#recent.set(runUuid, ended);
    const waiting = this.#waiting.get(runUuid);
    this.#waiting.delete(runUuid);
    for (const tell of waiting ?? []) tell(ended);
  }

  /**
   * Resolves with how the run ended, or with nothing when the signal aborts;
   * undefined if nothing is known of it here.
   */
  wait(runUuid: string, isHere: boolean, signal: AbortSignal): Promise<EndedRun | undefined> | undefined {
    const recent = this.#recent.get(runUuid);
    if (recent !== undefined) return Promise.resolve(recent);
    if (!isHere) return undefined;
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(runUuid) ?? new Set();
      this.#waiting.set(runUuid, waiting);
      const tell = (ended: EndedRun | undefined): void => {
        signal.removeEventListener("abort", onAbort);
        waiting.delete(tell);
        if (waiting.size === 0 && this.#waiting.get(runUuid) === waiting) this.#waiting.delete(runUuid);
        resolve(ended);
      };
      const onAbort = (): void => tell(undefined);
      waiting.add(tell);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }
}
