import type { ConnectError } from "@connectrpc/connect";
import type { Packed } from "./message-codec.ts";

/** How the messages of a stream ended. */
type End =
  | { readonly type: "open" }
  | { readonly type: "ended" }
  | { readonly type: "failed"; readonly failure: ConnectError };

interface Waiter<P> {
  resolve(result: IteratorResult<P, undefined>): void;
  reject(failure: ConnectError): void;
}

/**
 * The messages that a peer sends on one call, for one reader.
 *
 * 1. A message is asked of the wire while less than `readAheadBytes` wait for
 *    the reader; past that the peer is held up by flow control.
 * 2. Messages that came before an end or a failure are read before it.
 * 3. After the reader left, nothing is kept.
 */
export class Inbox<P extends Packed> implements AsyncIterable<P> {
  readonly #startRead: () => void;
  readonly #onLeave: () => void;
  readonly #readAheadBytes: number;
  readonly #messages: P[] = [];
  #bytes = 0;
  #reading = false;
  #left = false;
  #end: End = { type: "open" };
  #waiter: Waiter<P> | undefined;

  /**
   * @param startRead asks the wire for one message
   * @param onLeave is called when the reader stops before the end
   */
  constructor(startRead: () => void, onLeave: () => void, readAheadBytes = 64 * 1024) {
    this.#startRead = startRead;
    this.#onLeave = onLeave;
    this.#readAheadBytes = readAheadBytes;
  }

  /** Asks for the first message. */
  open(): void {
    this.#readMore();
  }

  /** Takes a message that was asked for. */
  deliver(message: P): void {
    this.#reading = false;
    if (this.#left || this.#end.type !== "open") return;
    const waiter = this.#waiter;
    if (waiter === undefined) {
      this.#messages.push(message);
      this.#bytes += message.byteLength;
    } else {
      this.#waiter = undefined;
      waiter.resolve({ done: false, value: message });
    }
    this.#readMore();
  }

  /** The peer has sent its last message. */
  end(): void {
    this.#finish({ type: "ended" });
  }

  /** No more messages come; the reader is told why. */
  fail(failure: ConnectError): void {
    this.#finish({ type: "failed", failure });
  }

  [Symbol.asyncIterator](): AsyncIterator<P, undefined> {
    return {
      next: () => this.#next(),
      return: async () => {
        this.#leave();
        return { done: true, value: undefined };
      },
    };
  }

  #next(): Promise<IteratorResult<P, undefined>> {
    const value = this.#messages.shift();
    if (value !== undefined) {
      this.#bytes -= value.byteLength;
      this.#readMore();
      return Promise.resolve({ done: false, value });
    }
    if (this.#left || this.#end.type === "ended") return Promise.resolve({ done: true, value: undefined });
    if (this.#end.type === "failed") {
      // Told once; a reader that asks again finds the end.
      this.#left = true;
      return Promise.reject(this.#end.failure);
    }
    if (this.#waiter !== undefined)
      return Promise.reject(new TypeError("a stream has one reader, which waits for each message"));
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
      this.#readMore();
    });
  }

  #leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.#messages.length = 0;
    this.#bytes = 0;
    if (this.#end.type === "open") this.#onLeave();
    this.#waiter?.resolve({ done: true, value: undefined });
    this.#waiter = undefined;
  }

  #finish(end: End): void {
    if (this.#end.type !== "open") return;
    this.#end = end;
    const waiter = this.#waiter;
    if (waiter === undefined) return;
    this.#waiter = undefined;
    if (end.type === "failed") {
      this.#left = true;
      waiter.reject(end.failure);
    } else {
      waiter.resolve({ done: true, value: undefined });
    }
  }

  #readMore(): void {
    if (this.#reading || this.#left || this.#end.type !== "open" || this.#bytes >= this.#readAheadBytes) return;
    this.#reading = true;
    this.#startRead();
  }
}
