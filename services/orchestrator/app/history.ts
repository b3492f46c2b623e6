import { type PastTurn, pastTurn } from "../domain/conversation.ts";
import type { Run } from "../domain/run.ts";
import type { SessionStore } from "../store/session-store.ts";

const pageSize = 20;

/** The turns before one, as a model is shown them. */
export type PastTurns = Pick<History, "before">;

/**
 * The ended turns of a session that a model may be shown, kept at the session's
 * owner. Turns that ended while they waited are left out: no model has seen them.
 */
export class History {
  readonly #store: Pick<SessionStore, "loadEnded">;
  readonly #sessionUuid: string;
  /** Oldest first. */
  #turns: { readonly ordinal: number; readonly runId: string; readonly turn: PastTurn }[] = [];
  /** Turns that were rolled back. */
  readonly #leftOut = new Set<string>();
  #tokens = 0;
  /** The ordinal below which nothing is in `#turns`; undefined before the first reading. */
  #unreadBelow: number | undefined;

  constructor(store: Pick<SessionStore, "loadEnded">, sessionUuid: string) {
    this.#store = store;
    this.#sessionUuid = sessionUuid;
  }

  /**
   * The turns before one, oldest first, as many as may fit a model's context,
   * and how many older ones there are.
   */
  async before(
    ordinal: number,
    contextTokens: number,
  ): Promise<{ readonly turns: readonly PastTurn[]; readonly older: number }> {
    this.#unreadBelow ??= ordinal;
    while (this.#unreadBelow > 1 && this.#tokens < contextTokens) {
      const page = await this.#store.loadEnded(this.#sessionUuid, this.#unreadBelow, pageSize);
      for (const { run, ordinal: read } of page) {
        this.#unreadBelow = read;
        // Later turns are read first, so what they leave out is known.
        this.leaveOut(run.accepted.leavesOut);
        if (run.started === undefined || this.#leftOut.has(run.runId)) continue;
        const turn = pastTurn(run);
        this.#turns.unshift({ ordinal: read, runId: run.runId, turn });
        this.#tokens += turn.tokens;
      }
      if (page.length < pageSize) this.#unreadBelow = 1;
    }
    return { turns: this.#turns.map(({ turn }) => turn), older: this.#unreadBelow - 1 };
  }

  /** The last turn before one that a model would be shown; undefined if there is none. */
  async last(ordinal: number): Promise<string | undefined> {
    await this.before(ordinal, 1);
    return this.#turns.at(-1)?.runId;
  }

  /** Shows turns to no model any more. */
  leaveOut(runIds: readonly string[]): void {
    for (const runId of runIds) {
      this.#leftOut.add(runId);
      const index = this.#turns.findIndex((turn) => turn.runId === runId);
      const [gone] = index < 0 ? [] : this.#turns.splice(index, 1);
      this.#tokens -= gone?.turn.tokens ?? 0;
    }
  }

  /** Adds a turn that ended just now. What no model could be shown any more is dropped. */
  add(run: Run, ordinal: number, contextTokens: number): void {
    if (this.#unreadBelow === undefined) return; // it will be read with the others
    if (run.started === undefined || this.#leftOut.has(run.runId)) return;
    const turn = pastTurn(run);
    this.#turns.push({ ordinal, runId: run.runId, turn });
    this.#tokens += turn.tokens;
    for (let first = this.#turns[0]; first !== undefined; first = this.#turns[0]) {
      if (this.#turns.length === 1 || this.#tokens - first.turn.tokens <= contextTokens) break;
      this.#tokens -= first.turn.tokens;
      this.#unreadBelow = first.ordinal + 1;
      this.#turns.shift();
    }
  }
}
