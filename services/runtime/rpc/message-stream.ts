// A stream passes a dozen of these on its way, and most have one message. So
// none is a generator, which adds four promises to each message where these add
// one, and each is one object, made for one reader.

/**
 * Turns each message of a stream into another. Ending the result ends the
 * source.
 */
export function mapMessages<A, B>(source: AsyncIterable<A>, change: (message: A) => B): AsyncIterable<B> {
  return new MappedMessages(source, change);
}

class MappedMessages<A, B> implements AsyncIterableIterator<B> {
  readonly #source: AsyncIterator<A>;
  readonly #changed: (result: IteratorResult<A>) => IteratorResult<B>;

  constructor(source: AsyncIterable<A>, change: (message: A) => B) {
    this.#source = source[Symbol.asyncIterator]();
    this.#changed = (result) => (result.done === true ? result : { done: false, value: change(result.value) });
  }

  next(): Promise<IteratorResult<B>> {
    return this.#source.next().then(this.#changed);
  }

  async return(): Promise<IteratorResult<B>> {
    await this.#source.return?.();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** How a stream ended: without a failure when it ran out or its reader left. */
export type StreamEnd = { readonly thrown: unknown } | undefined;

/** Who looks on at a stream that passes. */
export interface StreamObserver {
  /** Called once, when it has ended. */
  ended?(end: StreamEnd): void;
  /** What the reader is told of a failure in place of what was thrown, or a promise of it. */
  translate?(thrown: unknown): unknown;
}

/** Passes a stream on to its one reader while somebody looks on. */
export function observeStream<T>(source: AsyncIterable<T>, observer: StreamObserver): AsyncIterable<T> {
  return new ObservedMessages(source, observer);
}

class ObservedMessages<T> implements AsyncIterableIterator<T> {
  readonly #source: AsyncIterator<T>;
  readonly #observer: StreamObserver;
  readonly #passed: (result: IteratorResult<T>) => IteratorResult<T>;
  readonly #failed: (thrown: unknown) => never | Promise<never>;
  #open = true;

  constructor(source: AsyncIterable<T>, observer: StreamObserver) {
    this.#source = source[Symbol.asyncIterator]();
    this.#observer = observer;
    this.#passed = (result) => {
      if (result.done === true) this.#end(undefined);
      return result;
    };
    this.#failed = (thrown) => this.#fail(thrown);
  }

  next(): Promise<IteratorResult<T>> {
    return this.#source.next().then(this.#passed, this.#failed);
  }

  async return(): Promise<IteratorResult<T>> {
    try {
      await this.#source.return?.();
    } catch (thrown) {
      return await this.#fail(thrown);
    }
    this.#end(undefined);
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #end(how: StreamEnd): void {
    if (!this.#open) return;
    this.#open = false;
    this.#observer.ended?.(how);
  }

  #fail(thrown: unknown): never | Promise<never> {
    this.#end({ thrown });
    const told = this.#observer.translate === undefined ? thrown : this.#observer.translate(thrown);
    if (!(told instanceof Promise)) throw told;
    return told.then((translated: unknown) => {
      throw translated;
    });
  }
}

/** A stream of one message. */
export function singleMessage<T>(message: T): AsyncIterable<T> {
  return new SingleMessage(message);
}

class SingleMessage<T> implements AsyncIterableIterator<T> {
  readonly #message: T;
  #sent = false;

  constructor(message: T) {
    this.#message = message;
  }

  async next(): Promise<IteratorResult<T>> {
    if (this.#sent) return { done: true, value: undefined };
    this.#sent = true;
    return { done: false, value: this.#message };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
