import { type CallOptions, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { createGrpcMesh } from "../../services/runtime/mesh/grpc-mesh.ts";
import { type InteropRequest, type InteropResponse, InteropService } from "../support/gen/cadre/test/v1/interop_pb.js";
import { silentLog } from "../support/mesh-pair.ts";
import type { Attempt, InteropClient, Outcome } from "./outcome.ts";

/** Our client of the mesh. */
export function connectOurs(address: string): InteropClient {
  const mesh = createGrpcMesh({
    name: "gateway",
    listen: "127.0.0.1:0",
    addresses: { tools: [address] },
    log: silentLog,
  });
  return overTransport(mesh.transport("tools", []), () => mesh.close());
}

/** The gRPC client of connect-node. */
export function connectConnectNode(address: string): InteropClient {
  const baseUrl = `http://${address}`;
  const sessionManager = new Http2SessionManager(baseUrl);
  return overTransport(createGrpcTransport({ baseUrl, sessionManager }), async () => sessionManager.abort());
}

/** A client of the interop service over a Connect transport. */
export function overTransport(transport: Transport, close: () => Promise<void>): InteropClient {
  const client = createClient(InteropService, transport);
  return {
    close,
    async attempt(attempt): Promise<Outcome> {
      const messages: InteropResponse[] = [];
      let header = new Headers();
      let trailer = new Headers();
      let error: ConnectError | undefined;
      const source = openRequests(attempt);
      const options: CallOptions = {
        headers: attempt.header ?? new Headers(),
        onHeader: (received) => (header = received),
        onTrailer: (received) => (trailer = received),
        ...(attempt.timeoutMs === undefined ? {} : { timeoutMs: attempt.timeoutMs }),
        ...(attempt.signal === undefined ? {} : { signal: attempt.signal }),
      };
      const [first] = attempt.requests;
      if (first === undefined) throw new TypeError("an attempt has a request");
      try {
        switch (attempt.kind) {
          case "unary":
            messages.push(await client.unary(first, options));
            break;
          case "serverStream":
            for await (const message of client.serverStream(first, options)) messages.push(message);
            break;
          case "clientStream":
            messages.push(await client.clientStream(source.requests, options));
            break;
          case "bidiStream":
            for await (const message of client.bidiStream(source.requests, options)) messages.push(message);
            break;
        }
      } catch (thrown) {
        error = ConnectError.from(thrown);
      }
      return { messages, header, trailer, error, requestsReturned: source.returned() };
    },
  };
}

/** Requests that stay open, and a way to see that they were told to end. */
function openRequests({ requests, keepOpen }: Attempt) {
  let returned = false;
  let end = (): void => {};
  const stop = async (): Promise<IteratorReturnResult<undefined>> => {
    returned = true;
    end();
    return { done: true, value: undefined };
  };
  const waiting = requests[Symbol.iterator]();
  const stream: AsyncIterable<InteropRequest> = {
    [Symbol.asyncIterator]: () => ({
      async next() {
        const result = waiting.next();
        if (result.done !== true || keepOpen !== true) return result;
        return new Promise((resolve) => {
          end = () => resolve({ done: true, value: undefined });
          if (returned) end();
        });
      },
      return: stop,
      // connect-node ends a source by an error first.
      throw: stop,
    }),
  };
  return { requests: stream, returned: () => returned };
}
