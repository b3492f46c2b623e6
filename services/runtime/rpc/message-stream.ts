// A stream passes half a dozen of these on its way. None is a generator: each
// of those adds four promises to every message, where these add one.

/**
 * Turns each message of a stream into another. Ending the result ends the
 * source.
 */
export function mapMessages<A, B>(source: AsyncIterable<A>, change: (message: A) => B): AsyncIterable<B> {
  const changed = (result: IteratorResult<A>): IteratorResult<B> =>
    result.done === true ? result : { done: false, value: change(result.value) };
  return {
    [Symbol.asyncIterator]() {
      const iterator = source[Symbol.asyncIterator]();
      return {
        next: () => iterator.next().then(changed),
        async return() {
          await iterator.return?.();
          return { done: true, value: undefined };
        },
      };
    },
  };
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
  let open = true;
  const end = (how: StreamEnd): void => {
    if (!open) return;
    open = false;
    observer.ended?.(how);
  };
  const passed = (result: IteratorResult<T>): IteratorResult<T> => {
    if (result.done === true) end(undefined);
    return result;
  };
  const failed = (thrown: unknown): never | Promise<never> => {
    end({ thrown });
    const told = observer.translate === undefined ? thrown : observer.translate(thrown);
    if (!(told instanceof Promise)) throw told;
    return told.then((translated: unknown) => {
      throw translated;
    });
  };
  return {
    [Symbol.asyncIterator]() {
      const iterator = source[Symbol.asyncIterator]();
      return {
        next: () => iterator.next().then(passed, failed),
        async return() {
          try {
            await iterator.return?.();
          } catch (thrown) {
            return await failed(thrown);
          }
          end(undefined);
          return { done: true, value: undefined };
        },
      };
    },
  };
}

/** A stream of one message. */
export function singleMessage<T>(message: T): AsyncIterable<T> {
  let sent = false;
  const next = async (): Promise<IteratorResult<T>> => {
    if (sent) return { done: true, value: undefined };
    sent = true;
    return { done: false, value: message };
  };
  return { [Symbol.asyncIterator]: () => ({ next }) };
}
