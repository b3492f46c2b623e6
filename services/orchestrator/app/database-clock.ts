/** How far two clocks may run apart, in milliseconds a millisecond. */
const drift = 100e-6;

/**
 * The database's clock as a process knows it: its best reading, carried on by
 * the monotonic clock. A system clock that is set has no part in it, so that
 * timers of all processes mean the same.
 *
 * A reading is as exact as its answer was fast: one that a busy machine delayed
 * does not replace a better one, unless both cannot be true.
 */
export class DatabaseClock {
  #offsetMs = Date.now() - performance.now();
  /** How far the offset may be wrong, when it was read. */
  #errorMs = Number.POSITIVE_INFINITY;
  #readAtMs = 0;

  /** Whole milliseconds since the epoch. */
  readonly now = (): number => Math.floor(performance.now() + this.#offsetMs);

  /**
   * Takes a reading over, if it is the better one.
   *
   * @param readMs what the database said
   * @param askedMs when it was asked, and `answeredMs` when it had answered, on the monotonic clock
   */
  observe(readMs: number, askedMs: number, answeredMs: number): void {
    const offsetMs = readMs - (askedMs + answeredMs) / 2;
    const errorMs = (answeredMs - askedMs) / 2;
    const knownErrorMs = this.#errorMs + (answeredMs - this.#readAtMs) * drift;
    const contradicts = Math.abs(offsetMs - this.#offsetMs) > errorMs + knownErrorMs;
    if (errorMs > knownErrorMs && !contradicts) return;
    this.#offsetMs = offsetMs;
    this.#errorMs = errorMs;
    this.#readAtMs = answeredMs;
  }
}
