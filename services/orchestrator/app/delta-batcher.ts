/** How long text waits at most for more text, in milliseconds. */
export const deltaWindowMs = 25;

/**
 * Collects text so that not every token is an event: the first text goes out
 * at once, the rest in portions of at most 25 ms, or of `maxBytes`.
 */
export class DeltaBatcher {
  readonly #send: (text: string) => void;
  readonly #maxBytes: number;
  #text = "";
  #timer: NodeJS.Timeout | undefined;

  /** @param send takes a portion; must not throw */
  constructor(send: (text: string) => void, maxBytes = 16_384) {
    this.#send = send;
    this.#maxBytes = maxBytes;
  }

  /** Adds text. */
  add(text: string): void {
    if (text === "") return;
    if (this.#timer === undefined) {
      // Nothing was sent in the last window.
      this.#send(text);
      this.#arm();
      return;
    }
    this.#text += text;
    if (this.#text.length >= this.#maxBytes) this.#emit();
  }

  /** Sends what is left. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#emit();
  }

  /** Drops what is left. */
  discard(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#text = "";
  }

  #arm(): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#text === "") return;
      this.#emit();
      this.#arm();
    }, deltaWindowMs);
  }

  #emit(): void {
    if (this.#text === "") return;
    const text = this.#text;
    this.#text = "";
    this.#send(text);
  }
}
