import type { PastTurn } from "../domain/conversation.ts";
import { pastTurn } from "../domain/conversation.ts";
import type { Run } from "../domain/run.ts";
import type { SessionStore } from "../store/session-store.ts";

const pageSize = 20;

/** The ended turns of a session that a model may be shown, kept at the session's owner. */
export class History {
  readonly #store: Pick<SessionStore, "loadEnded">;
  readonly #sessionUuid: string;
  /** Oldest first. */
  #turns: PastTurn[] = [];
  #tokens = 0;
  /** Ended turns that are older than those in `#turns`. */
  #older = 0;
  /** The ordinal below which nothing was read yet; undefined before the first reading. */
  #unreadBelow: number | undefined;

  constructor(store: Pick<SessionStore, "loadEnded">, sessionUuid: string) {
    this.#store = store;
    this.#sessionUuid = sessionUuid;
  }

  /**
   * The turns before one, oldest first, as many as may fit a model's context,
   * and how many older ones there are.
   */
  async before(ordinal: number, contextTokens: number): Promise<{ turns: readonly PastTurn[]; older: number }> {
    this.#unreadBelow ??= ordinal;
    while (this.#unreadBelow > 1 && this.#tokens < contextTokens) {
      const page = await this.#store.loadEnded(this.#sessionUuid, this.#unreadBelow, pageSize);
      for (const { run, ordinal: read } of page) {
        const turn = pastTurn(run);
        this.#turns.unshift(turn);
        this.#tokens += turn.tokens;
        this.#unreadBelow = read;
      }
      if (page.length < pageSize) this.#unreadBelow = 1;
    }
    this.#older = this.#unreadBelow - 1;
    return { turns: this.#turns, older: this.#older };
  }

  /** Adds a turn that ended just now. What no model could be shown any more is dropped. */
  add(run: Run, contextTokens: number): void {
    if (this.#unreadBelow === undefined) return; // it will be read with the others
    const turn = pastTurn(run);
    this.#turns.push(turn);
    this.#tokens += turn.tokens;
    while (this.#turns.length > 1 && this.#tokens - (this.#turns[0]?.tokens ?? 0) > contextTokens) {
      this.#tokens -= this.#turns.shift()?.tokens ?? 0;
      this.#unreadBelow += 1;
    }
  }
}
