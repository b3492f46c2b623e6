/**
 * One timer for all that is due in the runs of this process: what is stored
 * with a time is found again by an index, so that a hundred thousand waiting
 * runs cost a row each and nothing else.
 */
import type { Logger } from "../../runtime/log/log.ts";
import type { RunStore } from "../store/run-store.ts";

export interface WakerOptions {
  readonly runs: Pick<RunStore, "listDue" | "nextDue">;
  /** The shards of this process. */
  readonly shards: () => readonly number[];
  /** The database's clock, in milliseconds since the epoch. */
  readonly now: () => number;
  readonly log: Logger;
  /** Has a root do what is due. Must not throw. */
  readonly wake: (rootUuid: string) => Promise<void>;
}

const page = 256;
/** What stays due although it was woken is looked at again after this long, doubled each time, in milliseconds. */
const againMs = { first: 50, most: 5_000 } as const;
/** What a timer can wait. */
const maxTimerMs = 2 ** 31 - 1;
/** After a look that failed, in milliseconds. */
const failedMs = 1_000;
/** How many roots are woken at once. */
const wakesAtOnce = 32;

/** Wakes root runs in time. */
export class Waker {
  readonly #options: WakerOptions;
  #timer: NodeJS.Timeout | undefined;
  #atMs = Number.POSITIVE_INFINITY;
  #looking: Promise<void> | undefined;
  #again = false;
  #stubborn = "";
  #againMs: number = againMs.first;
  #stopped = false;

  constructor(options: WakerOptions) {
    this.#options = options;
  }

  /** Something will be due. */
  at(atMs: number): void {
    if (this.#stopped || atMs >= this.#atMs) return;
    this.#atMs = atMs;
    clearTimeout(this.#timer);
    const delayMs = Math.min(Math.max(0, Math.ceil(atMs - this.#options.now())), maxTimerMs);
    this.#timer = setTimeout(() => {
      this.#atMs = Number.POSITIVE_INFINITY;
      void this.look();
    }, delayMs);
  }

  /**
   * Looks now: shards came, or a time was reached. A look that is under way may
   * have asked before that, so another one follows it.
   */
  look(): Promise<void> {
    if (this.#looking !== undefined) {
      this.#again = true;
      return this.#looking;
    }
    this.#looking = this.#look()
      .catch((error: unknown) => {
        this.#options.log.warn({ err: error }, "what is due cannot be looked up yet");
        this.#atMs = Number.POSITIVE_INFINITY;
        this.at(this.#options.now() + failedMs);
      })
      .finally(() => {
        this.#looking = undefined;
        if (!this.#again) return;
        this.#again = false;
        void this.look();
      });
    return this.#looking;
  }

  /** Wakes nothing any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#looking;
  }

  async #look(): Promise<void> {
    const { runs, shards, now, wake } = this.#options;
    if (this.#stopped) return;
    const owned = shards();
    // What is stored from here on sets the timer anew.
    clearTimeout(this.#timer);
    this.#atMs = Number.POSITIVE_INFINITY;
    const due = await runs.listDue(owned, page);
    const roots = [...new Set(due.map(({ rootId }) => rootId))];
    const queue = [...roots];
    const work = async (): Promise<void> => {
      for (let root = queue.pop(); root !== undefined && !this.#stopped; root = queue.pop()) await wake(root);
    };
    await Promise.all(Array.from({ length: wakesAtOnce }, work));
    const names = due.map(({ rootId, wakeAtMs }) => `${rootId}@${wakeAtMs}`).join();
    if (due.length > 0 && names === this.#stubborn) {
      this.at(now() + this.#againMs);
      this.#againMs = Math.min(this.#againMs * 2, againMs.most);
      return;
    }
    this.#stubborn = names;
    if (due.length > 0) {
      this.#againMs = againMs.first;
      // What they do is stored a moment later, and takes them off the list.
      this.at(now() + againMs.first);
      return;
    }
    const next = await runs.nextDue(owned);
    if (next !== undefined) this.at(next);
  }
}
