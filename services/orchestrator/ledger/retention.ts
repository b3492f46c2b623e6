/**
 * Removes what is older than its org keeps it: runs with their journals after
 * `run_retention_days`, the values that they alone referred to, and receipts
 * after 400 days. A little at a time, so that nothing else waits for it.
 */
import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { Limits } from "../../runtime/identity/limits.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { Companion } from "../app/engine.ts";
import type { Payloads } from "../store/payloads.ts";
import { type PruneDeps, pruneRun } from "./prune-run.ts";

export interface RetentionOptions extends PruneDeps {
  readonly payloads: Pick<Payloads, "collect">;
  readonly limits: Limits;
  /** Whether this process takes part; one that owns nothing does not. */
  readonly owning: () => boolean;
  readonly log: Logger;
  /** How long after a sweep the next one begins, in milliseconds. Default ten minutes. */
  readonly everyMs?: number;
}

/** For how long receipts are kept, in days. */
const receiptDays = 400;
const portion = 50;
/** Between two runs that are removed, in milliseconds. */
const restMs = 5;

/** Sweeps again and again. */
export class Retention implements Companion {
  readonly #options: RetentionOptions;
  readonly #stopping = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #sweeping: Promise<void> | undefined;

  constructor(options: RetentionOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    this.#later();
  }

  onShards(): void {
    // What is old is everybody's.
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    clearTimeout(this.#timer);
    await this.#sweeping;
  }

  /** Removes all that is too old now; how many runs. */
  async sweep(): Promise<number> {
    const { receipts, payloads, limits } = this.#options;
    let pruned = 0;
    for (const orgUuid of await receipts.listOrgs()) {
      const days = await limits.get(fromUuid("org", orgUuid), "run_retention_days");
      pruned += await this.#prune(orgUuid, Math.max(1, days));
    }
    while (!this.#stopping.signal.aborted && (await payloads.collect(portion)) === portion);
    while (!this.#stopping.signal.aborted && (await receipts.expire(receiptDays, portion)) === portion);
    return pruned;
  }

  async #prune(orgUuid: string, days: number): Promise<number> {
    let pruned = 0;
    for (;;) {
      const roots = await this.#options.receipts.listPrunable(orgUuid, days, portion);
      let gone = 0;
      for (const root of roots) {
        if (this.#stopping.signal.aborted) return pruned;
        if (await pruneRun(this.#options, root)) gone += 1;
        await delay(restMs);
      }
      pruned += gone;
      // What is left now waits for the relay, or for another process.
      if (roots.length < portion || gone === 0) return pruned;
    }
  }

  #later(): void {
    if (this.#stopping.signal.aborted) return;
    this.#timer = setTimeout(() => {
      this.#sweeping = (this.#options.owning() ? this.sweep() : Promise.resolve(0))
        .then((pruned) => {
          if (pruned > 0) this.#options.log.info({ pruned }, "runs past their retention were removed");
        })
        .catch((error: unknown) => {
          const { log } = this.#options;
          if (error instanceof AppError) log.warn({ err: error }, "what is too old cannot be removed yet");
          else log.error({ err: error }, "removing what is too old failed");
        })
        .finally(() => this.#later());
    }, this.#options.everyMs ?? 600_000);
    this.#timer.unref();
  }
}
