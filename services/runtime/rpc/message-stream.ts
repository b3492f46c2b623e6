/**
 * Turns each message of a stream into another. Ending the result ends the
 * source.
 */
export function mapMessages<A, B>(source: AsyncIterable<A>, change: (message: A) => B): AsyncIterable<B> {
  return {
    [Symbol.asyncIterator]() {
      const iterator = source[Symbol.asyncIterator]();
      return {
        async next() {
          const result = await iterator.next();
          return result.done === true ? result : { done: false, value: change(result.value) };
        },
        async return() {
          await iterator.return?.();
          return { done: true, value: undefined };
        },
      };
    },
  };
}

/** A stream of one message. */
export async function* singleMessage<T>(message: T): AsyncGenerator<T, void> {
  yield message;
}
