import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import {
  type CallOptions,
  Client,
  type ClientWritableStream,
  credentials,
  Metadata,
  type ServiceError,
  type StatusObject,
  status,
} from "@grpc/grpc-js";
import { fromMetadata, toMetadata } from "../../services/runtime/mesh/metadata.ts";
import { fromStatus } from "../../services/runtime/mesh/status.ts";
import {
  type InteropRequest,
  InteropRequestSchema,
  type InteropResponse,
  InteropResponseSchema,
  InteropService,
} from "../support/gen/cadre/test/v1/interop_pb.js";
import type { Attempt, InteropClient, Outcome } from "./outcome.ts";

const serialize = (request: InteropRequest): Buffer => Buffer.from(toBinary(InteropRequestSchema, request));
const deserialize = (bytes: Buffer): InteropResponse => fromBinary(InteropResponseSchema, new Uint8Array(bytes));

/** The client of grpc-js as its users call it, with callbacks and streams. */
export function connectGrpcJs(address: string): InteropClient {
  const client = new Client(address, credentials.createInsecure(), { "grpc.max_receive_message_length": -1 });
  return {
    attempt: (attempt) => new Promise((resolve, reject) => run(client, attempt, resolve, reject)),
    async close() {
      client.close();
    },
  };
}

function run(
  client: Client,
  attempt: Attempt,
  resolve: (outcome: Outcome) => void,
  reject: (thrown: unknown) => void,
): void {
  const { kind, requests, keepOpen } = attempt;
  const path = `/${InteropService.typeName}/${InteropService.method[kind].name}`;
  const metadata = toMetadata(attempt.header ?? new Headers());
  const options: CallOptions = attempt.timeoutMs === undefined ? {} : { deadline: Date.now() + attempt.timeoutMs };
  const [first] = requests;
  if (first === undefined) throw new TypeError("an attempt has a request");
  const messages: InteropResponse[] = [];
  let header = new Metadata();
  const take = (_error: ServiceError | null, message?: InteropResponse): void => {
    if (message !== undefined) messages.push(message);
  };
  const write = <C extends ClientWritableStream<InteropRequest>>(stream: C): C => {
    for (const request of requests) stream.write(request);
    if (keepOpen !== true) stream.end();
    return stream;
  };
  const start = () => {
    switch (kind) {
      case "unary":
        return client.makeUnaryRequest(path, serialize, deserialize, first, metadata, options, take);
      case "serverStream":
        return client.makeServerStreamRequest(path, serialize, deserialize, first, metadata, options);
      case "clientStream":
        return write(client.makeClientStreamRequest(path, serialize, deserialize, metadata, options, take));
      case "bidiStream":
        return write(client.makeBidiStreamRequest(path, serialize, deserialize, metadata, options));
    }
  };
  const call = start();
  call.on("data", (message: InteropResponse) => messages.push(message));
  call.on("error", () => {}); // told by the status, too
  call.on("metadata", (received: Metadata) => (header = received));
  attempt.signal?.addEventListener("abort", () => call.cancel());
  call.on("status", ({ code, details, metadata: trailer }: StatusObject) => {
    const error = code === status.OK ? undefined : fromStatus({ code, details, metadata: trailer });
    if (error !== undefined && !(error instanceof ConnectError)) reject(error);
    resolve({ messages, header: fromMetadata(header), trailer: fromMetadata(trailer), error, requestsReturned: true });
  });
}
