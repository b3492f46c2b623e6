import type { DescMessage, DescMethodStreaming, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { Caller } from "./caller.ts";

/**
 * Reads a server stream to its end over one connection. Leaving the loop, and
 * the signal, end the connection.
 *
 * @throws CadreError as the stream does; `UNAVAILABLE` if it breaks
 */
export async function* readOnce<I extends DescMessage, O extends DescMessage>(
  caller: Caller,
  method: DescMethodStreaming<I, O>,
  request: MessageInitShape<I>,
  signal?: AbortSignal,
): AsyncGenerator<MessageShape<O>, void, undefined> {
  const connection = new AbortController();
  const onAbort = () => connection.abort(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted === true) onAbort();
  try {
    yield* await caller.stream(method, request, connection.signal);
  } finally {
    signal?.removeEventListener("abort", onAbort);
    connection.abort();
  }
}
