import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  type Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerErrorResponse,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
} from "@grpc/grpc-js";
import { toConnectError } from "../../services/runtime/errors/failure.ts";
import { fromMetadata, toMetadata } from "../../services/runtime/mesh/metadata.ts";
import { toStatus } from "../../services/runtime/mesh/status.ts";
import {
  Behavior,
  type InteropRequest,
  InteropRequestSchema,
  type InteropResponse,
  InteropResponseSchema,
  InteropService,
} from "../support/gen/cadre/test/v1/interop_pb.js";
import { type HandlerWatch, interopFailure } from "../support/interop-handlers.ts";
import type { InteropServer } from "./outcome.ts";

/** What calls of all kinds have. */
interface AnyCall {
  readonly metadata: Metadata;
  sendMetadata(metadata: Metadata): void;
  on(event: "cancelled", listener: () => void): unknown;
}

/** The interop service on grpc-js as its users write it, with callbacks and streams. */
export async function serveGrpcJs(watch: HandlerWatch): Promise<InteropServer> {
  const server = new Server({ "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 });
  server.addService(definition(), {
    unary(call: ServerUnaryCall<InteropRequest, InteropResponse>, callback: sendUnaryData<InteropResponse>) {
      begin(call, call.request, watch);
      if (call.request.behavior === Behavior.HANG) return;
      if (call.request.behavior === Behavior.FAIL) callback(failure());
      else callback(null, response({ requests: 1, data: new Uint8Array(call.request.answerBytes) }), echoTrailer(call));
    },
    serverStream(call: ServerWritableStream<InteropRequest, InteropResponse>) {
      const { request } = call;
      begin(call, request, watch);
      for (let index = 0; index < request.count; index++) {
        call.write(response({ index, requests: 1, data: new Uint8Array(request.answerBytes) }));
      }
      if (request.behavior === Behavior.FAIL) call.emit("error", failure());
      else if (request.behavior !== Behavior.HANG) call.end(echoTrailer(call));
    },
    clientStream(
      call: ServerReadableStream<InteropRequest, InteropResponse>,
      callback: sendUnaryData<InteropResponse>,
    ) {
      let first: InteropRequest | undefined;
      let requests = 0;
      call.on("data", (request: InteropRequest) => {
        requests += 1;
        if (first !== undefined) return;
        first = request;
        begin(call, request, watch);
        if (request.behavior === Behavior.FAIL) callback(failure());
      });
      call.on("end", () => {
        if (first === undefined || first.behavior === Behavior.OK) {
          callback(null, response({ requests, data: new Uint8Array(first?.answerBytes ?? 0) }), echoTrailer(call));
        }
      });
    },
    bidiStream(call: ServerDuplexStream<InteropRequest, InteropResponse>) {
      let index = 0;
      call.on("data", (request: InteropRequest) => {
        if (index === 0) begin(call, request, watch);
        call.write(response({ index, requests: index + 1, data: new Uint8Array(request.answerBytes) }));
        index += 1;
        if (request.behavior === Behavior.FAIL) call.emit("error", failure());
      });
      call.on("end", () => call.end(echoTrailer(call)));
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return {
    address: `127.0.0.1:${port}`,
    async close() {
      server.forceShutdown();
    },
  };
}

function definition() {
  return Object.fromEntries(
    InteropService.methods.map((method) => [
      method.localName,
      {
        path: `/${InteropService.typeName}/${method.name}`,
        requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
        responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
        requestSerialize: (request: InteropRequest) => Buffer.from(toBinary(InteropRequestSchema, request)),
        requestDeserialize: (bytes: Buffer) => fromBinary(InteropRequestSchema, new Uint8Array(bytes)),
        responseSerialize: (message: InteropResponse) => Buffer.from(toBinary(InteropResponseSchema, message)),
        responseDeserialize: (bytes: Buffer) => fromBinary(InteropResponseSchema, new Uint8Array(bytes)),
      },
    ]),
  );
}

function begin(call: AnyCall, request: InteropRequest, watch: HandlerWatch): void {
  call.on("cancelled", () => watch.onAbort?.(request.callId, "cancelled"));
  call.sendMetadata(toMetadata(echoed(call, "echo-")));
}

function echoTrailer(call: AnyCall): Metadata {
  return toMetadata(echoed(call, "echo-trailer-"));
}

function echoed(call: AnyCall, prefix: string): Headers {
  const headers = new Headers();
  fromMetadata(call.metadata).forEach((value, name) => {
    if (name.startsWith("echo-")) headers.append(name.replace("echo-", prefix), value);
  });
  return headers;
}

function response(init: MessageInitShape<typeof InteropResponseSchema>): InteropResponse {
  return create(InteropResponseSchema, init);
}

function failure(): ServerErrorResponse {
  return Object.assign(new Error(), toStatus(toConnectError(interopFailure(), "req")));
}
