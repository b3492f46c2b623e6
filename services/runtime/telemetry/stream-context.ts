import { type Context, context } from "@opentelemetry/api";

/** Asks a stream for each message within a context: a generator runs in the context of whoever asks. */
export function within<T>(scope: Context, source: AsyncIterable<T>): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]() {
      const iterator = source[Symbol.asyncIterator]();
      return {
        next: () => context.with(scope, () => iterator.next()),
        async return() {
          await context.with(scope, () => iterator.return?.());
          return { done: true, value: undefined };
        },
      };
    },
  };
}
