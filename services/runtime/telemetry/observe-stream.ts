import { context } from "@opentelemetry/api";

/** How a stream ended: without a failure when it ran out or its reader left. */
export type StreamEnd = { readonly thrown: unknown } | undefined;

/**
 * Passes a stream on, asks for each message within a context (a generator runs
 * in the context of whoever asks), and tells once how it ended.
 */
export async function* observeStream<T>(
  source: AsyncIterable<T>,
  scope: ReturnType<typeof context.active> | undefined,
  ended: (end: StreamEnd) => void,
): AsyncGenerator<T> {
  const iterator = source[Symbol.asyncIterator]();
  const pull = scope === undefined ? () => iterator.next() : () => context.with(scope, () => iterator.next());
  let end: StreamEnd;
  let exhausted = false;
  try {
    for (;;) {
      const result = await pull();
      if (result.done === true) {
        exhausted = true;
        return;
      }
      yield result.value;
    }
  } catch (thrown) {
    end = { thrown };
    exhausted = true;
    throw thrown;
  } finally {
    if (!exhausted) await iterator.return?.();
    ended(end);
  }
}
