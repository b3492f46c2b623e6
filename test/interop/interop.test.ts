import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BadRequestSchema, ErrorInfoSchema } from "@cadre/gen/google/rpc/error_details_pb";
import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createMemoryMesh } from "../../services/runtime/memory/memory-mesh.ts";
import { type Implementation, implement } from "../../services/runtime/rpc/implementation.ts";
import { defaultMessageLimits } from "../../services/runtime/rpc/message-codec.ts";
import {
  Behavior,
  InteropRequestSchema,
  InteropResponseSchema,
  InteropService,
} from "../support/gen/cadre/test/v1/interop_pb.js";
import { type HandlerWatch, interopFailure, interopHandlers } from "../support/interop-handlers.ts";
import { connectConnectNode, connectOurs, overTransport } from "./connect-client.ts";
import { serveConnectNode, serveOurs } from "./connect-server.ts";
import { connectGrpcJs } from "./grpc-js-client.ts";
import { serveGrpcJs } from "./grpc-js-server.ts";
import { type Attempt, type InteropClient, type InteropServer, type Kind, kinds, type Outcome } from "./outcome.ts";

const clients = { ours: connectOurs, "grpc-js": connectGrpcJs, "connect-node": connectConnectNode } as const;
const servers = { ours: serveOurs, "grpc-js": serveGrpcJs, "connect-node": serveConnectNode } as const;

const memory = createMemoryMesh();

interface Pair {
  readonly client: string;
  readonly server: string;
  /** Whether one end is ours, so that our limits hold. */
  readonly limited: boolean;
  serve(watch: HandlerWatch): Promise<InteropServer>;
  connect(address: string): InteropClient;
}

const pairs: Pair[] = [
  ...Object.entries(clients).flatMap(([client, connect]) =>
    Object.entries(servers).map(([server, serve]) => ({
      client,
      server,
      connect,
      serve,
      limited: client === "ours" || server === "ours",
    })),
  ),
  {
    client: "ours in memory",
    server: "ours in memory",
    limited: true,
    async serve(watch) {
      const implementations = [implement(InteropService, interopHandlers(watch)) as Implementation];
      const { address, close } = await memory.serve("tools", { implementations, interceptors: [] });
      return { address, close: () => close(0) };
    },
    connect: () => overTransport(memory.transport("tools", []), async () => {}),
  },
];

/** How many bytes of data make a message exactly as large as wanted. */
function dataBytes(wanted: number, encode: (data: Uint8Array) => Uint8Array): number {
  const overhead = encode(new Uint8Array(wanted)).byteLength - wanted;
  return wanted - overhead;
}

let lastCall = 0;
const request = (init: MessageInitShape<typeof InteropRequestSchema> = {}) =>
  create(InteropRequestSchema, { behavior: Behavior.OK, count: 3, callId: `call-${++lastCall}`, ...init });

const streamsRequests = (kind: Kind): boolean => kind === "clientStream" || kind === "bidiStream";
const streamsAnswers = (kind: Kind): boolean => kind === "serverStream" || kind === "bidiStream";

describe.each(pairs)("$client client to $server server", (pair) => {
  let server: InteropServer;
  let client: InteropClient;
  const aborted = new Map<string, () => void>();

  beforeAll(async () => {
    server = await pair.serve({ onAbort: (callId) => aborted.get(callId)?.() });
    client = pair.connect(server.address);
  });
  afterAll(async () => {
    await client.close();
    await server.close();
  });

  const attempt = (options: Attempt): Promise<Outcome> => client.attempt(options);
  /** Resolves when the handler of a call was told that it ended. */
  const handlerAborted = (callId: string): Promise<void> => new Promise((resolve) => aborted.set(callId, resolve));

  describe.each(kinds)("%s", (kind) => {
    test("ok", async () => {
      const requests = streamsRequests(kind) ? [request(), request(), request()] : [request({ answerBytes: 5 })];
      const { messages, error } = await attempt({ kind, requests });
      expect(error).toBeUndefined();
      const seen = messages.map(({ index, requests, data }) => [index, requests, data.byteLength]);
      expect(seen).toEqual(
        {
          unary: [[0, 1, 5]],
          serverStream: [
            [0, 1, 5],
            [1, 1, 5],
            [2, 1, 5],
          ],
          clientStream: [[0, 3, 0]],
          bidiStream: [
            [0, 1, 0],
            [1, 2, 0],
            [2, 3, 0],
          ],
        }[kind],
      );
    });

    test("an error with details, text and metadata, behind the messages before it", async () => {
      const { messages, error } = await attempt({ kind, requests: [request({ behavior: Behavior.FAIL, count: 1 })] });
      const failure = interopFailure();
      expect(error?.code).toBe(Code.NotFound);
      expect(error?.rawMessage).toBe(failure.message);
      expect(error?.findDetails(ErrorInfoSchema)[0]).toMatchObject({
        reason: failure.reason,
        metadata: failure.metadata,
      });
      expect(error?.findDetails(BadRequestSchema)[0]?.fieldViolations[0]).toMatchObject({ field: "call_id" });
      // Where grpc-js's own client reads, an error overtakes what it has not read yet.
      if (pair.client !== "grpc-js") expect(messages.length).toBe(streamsAnswers(kind) ? 1 : 0);
    });

    test("a deadline ends the client's side in time and the handler's", async () => {
      const hanging = request({ behavior: Behavior.HANG, count: 1 });
      const told = handlerAborted(hanging.callId);
      const { error, requestsReturned } = await attempt({ kind, requests: [hanging], keepOpen: true, timeoutMs: 150 });
      expect(error?.code).toBe(Code.DeadlineExceeded);
      if (streamsRequests(kind)) expect(requestsReturned).toBe(true);
      await told;
    });

    test("a cancellation ends the client's side and the handler's", async () => {
      const hanging = request({ behavior: Behavior.HANG, count: 1 });
      const told = handlerAborted(hanging.callId);
      const ending = new AbortController();
      const outcome = attempt({ kind, requests: [hanging], keepOpen: true, signal: ending.signal });
      setTimeout(() => ending.abort(), 50);
      const { error, requestsReturned } = await outcome;
      expect(error?.code).toBe(Code.Canceled);
      if (streamsRequests(kind)) expect(requestsReturned).toBe(true);
      await told;
    });

    test("metadata: several values, binary, headers and trailers; reserved names do not cross", async () => {
      const header = new Headers({ "echo-text": "one", "echo-data-bin": "AAEC/w", "grpc-internal": "no" });
      header.append("echo-text", "two, three");
      header.append("echo-data-bin", "BQYH");
      const outcome = await attempt({ kind, requests: [request({ count: 1 })], header });
      expect(outcome.error).toBeUndefined();
      for (const [received, prefix] of [
        [outcome.header, "echo-"],
        [outcome.trailer, "echo-trailer-"],
      ] as const) {
        expect(received.get(`${prefix}text`)).toBe("one, two, three");
        const binary = received
          .get(`${prefix}data-bin`)
          ?.split(/, */)
          .map((value) => [...Buffer.from(value, "base64")]);
        expect(binary).toEqual([
          [0, 1, 2, 255],
          [5, 6, 7],
        ]);
        expect(received.get("grpc-internal")).toBeNull();
      }
    });

    if (!pair.limited) return;
    const limit = kind === "unary" ? defaultMessageLimits.unaryMaxBytes : defaultMessageLimits.streamMaxBytes;
    const callId = "sized";
    const count = 1;
    const requestData = dataBytes(limit, (data) =>
      toBinary(InteropRequestSchema, create(InteropRequestSchema, { behavior: Behavior.OK, count, callId, data })),
    );
    const answerData = dataBytes(limit, (data) =>
      toBinary(InteropResponseSchema, create(InteropResponseSchema, { requests: 1, data })),
    );

    test("a request at the limit arrives", async () => {
      const { error } = await attempt({
        kind,
        requests: [request({ callId, count, data: new Uint8Array(requestData) })],
      });
      expect(error).toBeUndefined();
    });

    test("a request one byte past the limit is refused", async () => {
      const { error } = await attempt({
        kind,
        requests: [request({ callId, count, data: new Uint8Array(requestData + 1) })],
      });
      expectTooLarge(error);
    });

    test("an answer at the limit arrives", async () => {
      const { error, messages } = await attempt({
        kind,
        requests: [request({ callId, count, answerBytes: answerData })],
      });
      expect(error).toBeUndefined();
      expect(messages[0]?.data.byteLength).toBe(answerData);
    });

    test("an answer one byte past the limit is refused", async () => {
      const { error, messages } = await attempt({
        kind,
        requests: [request({ callId, count, answerBytes: answerData + 1 })],
      });
      expect(messages).toEqual([]);
      expectTooLarge(error);
    });
  });
});

function expectTooLarge(error: Outcome["error"]): void {
  expect(error?.code).toBe(Code.ResourceExhausted);
  expect(error?.findDetails(ErrorInfoSchema)[0]?.reason).toBe("MESSAGE_TOO_LARGE");
}
