/**
 * The database's clock as a process knows it: what was read last, carried on by
 * the monotonic clock. A system clock that is set has no part in it, so that
 * timers of all processes mean the same.
 */
export class DatabaseClock {
  #offsetMs = Date.now() - performance.now();

  /** Whole milliseconds since the epoch. */
  readonly now = (): number => Math.floor(performance.now() + this.#offsetMs);

  /**
   * Takes a reading over.
   *
   * @param readMs what the database said
   * @param askedMs when it was asked, and `answeredMs` when it had answered, on the monotonic clock
   */
  observe(readMs: number, askedMs: number, answeredMs: number): void {
    this.#offsetMs = readMs - (askedMs + answeredMs) / 2;
  }
}
