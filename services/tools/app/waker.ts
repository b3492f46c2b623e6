/** Wakes one waiter. A wake-up while nobody waits is kept for the next wait; several are one. */
export class Waker {
  #isAwake = false;
  #end: (() => void) | undefined;

  readonly wake = (): void => {
    this.#isAwake = true;
    this.#end?.();
  };

  /** Waits for a wake-up, for at most `timeoutMs`, or until the signal aborts. Says whether it was woken. */
  async wait(timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    if (!this.#isAwake && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const end = (): void => {
          clearTimeout(timer);
          signal.removeEventListener("abort", end);
          this.#end = undefined;
          resolve();
        };
        const timer = setTimeout(end, timeoutMs);
        signal.addEventListener("abort", end, { once: true });
        this.#end = end;
      });
    }
    const wasAwake = this.#isAwake;
    this.#isAwake = false;
    return wasAwake;
  }
}
