import { AppError } from "../errors/app-error.ts";
import { backOffMs } from "../wait/back-off.ts";

type State =
  | { readonly kind: "open" }
  /** Not known to be up, or known to be down; the next attempt may begin at `untilMs`. */
  | { readonly kind: "closed"; readonly failures: number; readonly untilMs: number }
  /** One attempt is under way, and decides for all. */
  | { readonly kind: "probing"; readonly failures: number; readonly outcome: Promise<void> };

const waits = { firstMs: 200, mostMs: 2_000 } as const;

/**
 * Spaces out the attempts to connect to a server that may be down: the first
 * one, and those after a failure or a connection that broke, go one at a time,
 * with growing pauses of at most two seconds, while everybody else is refused at once. So a server that
 * is down gets no storm, and one that is back is found within two seconds. One
 * that answers is connected to as often as the pools, which are bounded, like.
 */
export class ConnectGate {
  readonly #now: () => number;
  readonly #random: () => number;
  #state: State = { kind: "closed", failures: 0, untilMs: Number.NEGATIVE_INFINITY };

  /**
   * @param now monotonic milliseconds
   * @param random in [0, 1)
   */
  constructor(now: () => number = () => performance.now(), random: () => number = Math.random) {
    this.#now = now;
    this.#random = random;
  }

  /**
   * Runs one attempt to connect.
   *
   * @throws AppError UNAVAILABLE at once while the server is known to be down
   * @throws what `connect` throws
   */
  async attempt<T>(connect: () => Promise<T>): Promise<T> {
    if (this.#state.kind === "probing") await this.#state.outcome;
    const state = this.#state;
    switch (state.kind) {
      case "open":
        return this.#watch(connect(), 0);
      case "closed": {
        const waitMs = state.untilMs - this.#now();
        if (waitMs > 0) throw unavailable(waitMs);
        const connecting = connect();
        const outcome = connecting.then(
          () => undefined,
          () => undefined,
        );
        this.#state = { kind: "probing", failures: state.failures, outcome };
        return this.#watch(connecting, state.failures);
      }
      case "probing":
        // A second probe began while this one waited for the first: the server is flapping.
        throw unavailable(waits.mostMs);
    }
  }

  /** Told that a connection broke: the server may be gone, so that the next attempt decides for all. */
  doubt(): void {
    if (this.#state.kind === "open") this.#state = { kind: "closed", failures: 0, untilMs: Number.NEGATIVE_INFINITY };
  }

  async #watch<T>(connecting: Promise<T>, failures: number): Promise<T> {
    try {
      const result = await connecting;
      this.#state = { kind: "open" };
      return result;
    } catch (error) {
      const waitMs = backOffMs(failures + 1, waits, this.#random);
      this.#state = { kind: "closed", failures: Math.min(failures + 1, 10), untilMs: this.#now() + waitMs };
      throw error;
    }
  }
}

function unavailable(retryAfterMs: number): AppError {
  return new AppError("UNAVAILABLE", "the database cannot be reached", { retryAfterMs: Math.ceil(retryAfterMs) });
}
