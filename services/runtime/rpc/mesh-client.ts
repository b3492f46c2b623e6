import type { DescMessage, DescMethodServerStreaming, DescService, MessageInitShape } from "@bufbuild/protobuf";
import { type CallOptions, type Client, createClient, type StreamResponse, type Transport } from "@connectrpc/connect";
import { singleMessage } from "./message-stream.ts";

/**
 * Connect's client of a service, with server streams of our own: one that is
 * left before its end (`break`, `return`) ends the call, and it is read without
 * Connect's generators. Those are compiled for old browsers and make functions
 * for each call, which the collector finds only when it looks at everything: of
 * a call of one message they were half.
 */
export function createMeshClient<S extends DescService>(service: S, transport: Transport): Client<S> {
  const client = createClient(service, transport);
  for (const method of service.methods) {
    if (method.methodKind === "server_streaming") {
      Reflect.set(client, method.localName, serverStream(transport, method as DescMethodServerStreaming));
    }
  }
  return client;
}

function serverStream<I extends DescMessage, O extends DescMessage>(
  transport: Transport,
  method: DescMethodServerStreaming<I, O>,
) {
  return (input: MessageInitShape<I>, options: CallOptions = {}) =>
    answersOf(
      transport.stream(
        method,
        options.signal,
        options.timeoutMs,
        options.headers,
        singleMessage(input),
        options.contextValues,
      ),
      options,
    );
}

/** The messages of a call's answer, for one reader. */
function answersOf<I extends DescMessage, O extends DescMessage>(
  call: Promise<StreamResponse<I, O>>,
  { onHeader, onTrailer }: CallOptions,
) {
  const answers = call.then((response) => {
    onHeader?.(response.header);
    return { iterator: response.message[Symbol.asyncIterator](), trailer: response.trailer };
  });
  // Whoever reads is told of a failure; a call that nobody reads has nobody to tell.
  answers.catch(() => {});
  return {
    [Symbol.asyncIterator]: () => ({
      async next() {
        const { iterator, trailer } = await answers;
        const result = await iterator.next();
        if (result.done === true) onTrailer?.(trailer);
        return result;
      },
      async return() {
        await (await answers).iterator.return?.();
        return { done: true as const, value: undefined };
      },
    }),
  };
}
