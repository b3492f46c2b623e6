import * as http from "node:http";
import { create, toBinary } from "@bufbuild/protobuf";
import {
  GetSessionRequestSchema,
  type SendTurnRequest,
  SendTurnRequestSchema,
  SessionService,
} from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import type { Interceptor, ServiceImpl } from "@connectrpc/connect";
import { metrics, trace } from "@opentelemetry/api";
import { pino } from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createByteBudget } from "../../runtime/edge/byte-budget.ts";
import { type ConnectHandler, createConnectHandler } from "../../runtime/edge/connect-handler.ts";
import { edgeLimits } from "../../runtime/edge/edge-limits.ts";
import { createEdgeServer, type EdgeServer } from "../../runtime/edge/edge-server.ts";
import { logRefused } from "../../runtime/edge/refused-call.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import { newId } from "../../runtime/ids/id.ts";
import { deadline } from "../../runtime/interceptor/deadline.ts";
import { errors } from "../../runtime/interceptor/errors.ts";
import { limits } from "../../runtime/interceptor/limits.ts";
import { telemetry } from "../../runtime/interceptor/telemetry.ts";
import { validation } from "../../runtime/interceptor/validation.ts";
import { implement } from "../../runtime/rpc/implementation.ts";
import { isUnary } from "../contract/method-kind.ts";
import { createLocalTransport } from "../rest/local-transport.ts";
import { createUnaryHandler } from "./unary-handler.ts";

// The short way against the adapter's: the same requests, answer by answer.

const sessionId = newId("ses");
const log = pino({ level: "silent" });
const budget = createByteBudget(edgeLimits);
let short: EdgeServer;
let adapter: EdgeServer;

const sessions: Partial<ServiceImpl<typeof SessionService>> = {
  getSession: (request) => ({ session: { sessionId: request.sessionId, title: "größer" } }),
  sendTurn(request: SendTurnRequest, context) {
    switch (request.text) {
      case "large":
        return { turn: { answer: "x".repeat(10_000) } };
      case "too large":
        return { turn: { answer: "x".repeat(5 * 1024 * 1024) } };
      case "limit":
        throw new AppError("RATE_LIMITED", "too fast", { retryAfterMs: 500, metadata: { a: "b" } });
      case "bug":
        throw new Error("geheim");
      case "slow":
        return new Promise(() => {});
      default:
        context.responseHeader.set("cadre-a", "1");
        context.responseTrailer.set("cadre-b", "2");
        return { turn: { text: request.text } };
    }
  },
};

beforeAll(async () => {
  const chain: Interceptor[] = [
    telemetry({
      host: "gateway",
      plane: "edge",
      tracer: trace.getTracer("test"),
      meter: metrics.getMeter("test"),
      log,
    }),
    errors(log),
    deadline(),
    limits(),
    validation(),
  ];
  const implementations = [implement(SessionService, sessions as ServiceImpl<typeof SessionService>)];
  const others = createConnectHandler({ implementations, interceptors: chain, log });
  const listen = (handler: ConnectHandler) =>
    createEdgeServer({ listen: { host: "127.0.0.1", port: 0 }, log, handler: handler.handle });
  adapter = await listen(others);
  short = await listen(
    createUnaryHandler({
      methods: SessionService.methods.filter(isUnary),
      transport: createLocalTransport(implementations, chain),
      others,
      budget,
      onRefused: logRefused(log),
    }),
  );
});

afterAll(() => Promise.all([short.close(0), adapter.close(0)]));

interface Answer {
  readonly status: number | undefined;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

function ask(server: EdgeServer, path: string, headers: http.OutgoingHttpHeaders, body: Uint8Array): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: "127.0.0.1", port: server.port, path, method: "POST", headers, agent: false });
    request.on("error", reject);
    request.on("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString("latin1");
        resolve({ status: response.statusCode, headers: response.headers, body: masked(text) });
      });
    });
    request.end(body);
  });
}

/** What differs from request to request by its nature: ids, also within details in base64. */
function masked(body: string): string {
  return body
    .replaceAll(/"value":"([A-Za-z0-9+/]+)"/g, (_, value: string) =>
      JSON.stringify(Buffer.from(value, "base64").toString("latin1")),
    )
    .replaceAll(/(req|evt)_[0-9a-z]{26}/g, "$1_");
}

function comparable({ status, headers, body }: Answer): unknown {
  const { date: _, "x-request-id": requestId, "content-length": length, ...rest } = headers;
  return { status, body, rest, hasId: String(requestId).startsWith("req_"), hasLength: length !== undefined };
}

const good = { "content-type": "application/proto", "connect-protocol-version": "1" };
const getSession = "/cadre.orchestrator.v1.SessionService/GetSession";
const sendTurn = "/cadre.orchestrator.v1.SessionService/SendTurn";
const known = toBinary(GetSessionRequestSchema, create(GetSessionRequestSchema, { sessionId }));
const turn = (text: string) => toBinary(SendTurnRequestSchema, create(SendTurnRequestSchema, { sessionId, text }));
const bytes = (...values: number[]) => Uint8Array.from(values);

test.each<[string, number, string, http.OutgoingHttpHeaders, Uint8Array]>([
  ["a good call", 200, getSession, good, known],
  ["headers and trailers", 200, sendTurn, good, turn("x")],
  ["a large answer, compressed", 200, sendTurn, { ...good, "accept-encoding": "gzip, br" }, turn("large")],
  ["one for a caller without compression", 200, sendTurn, { ...good, "accept-encoding": "identity" }, turn("large")],
  ["a failure with details", 429, sendTurn, good, turn("limit")],
  ["a bug", 500, sendTurn, good, turn("bug")],
  ["a deadline", 504, sendTurn, { ...good, "connect-timeout-ms": "50" }, turn("slow")],
  ["a broken rule", 400, sendTurn, good, turn("")],
  ["a method without a handler", 501, "/cadre.orchestrator.v1.SessionService/DeleteSession", good, known],
  ["no body", 400, getSession, good, bytes()],
  ["bytes that are no message", 400, getSession, good, bytes(0xff, 0xff, 0xff)],
  ["a cut length", 400, getSession, good, bytes(0x0a, 0x20, 0x61)],
  ["an overlong varint", 400, getSession, good, bytes(...Array.from({ length: 11 }, () => 0xff))],
  ["field 0", 400, getSession, good, bytes(0x00, 0x00)],
  ["wire type 7", 400, getSession, good, bytes(0x0f)],
  ["nested groups", 400, getSession, good, bytes(...Array.from({ length: 200 }, () => 0x1b))],
  ["no UTF-8", 400, getSession, good, bytes(0x0a, 0x01, 0xff)],
  ["a length of 2^31", 400, getSession, good, bytes(0x0a, 0x80, 0x80, 0x80, 0x80, 0x08)],
  ["a body over the limit", 429, getSession, good, new Uint8Array(4 * 1024 * 1024 + 1)],
  ["no version", 400, getSession, { "content-type": "application/proto" }, known],
  ["another version", 400, getSession, { ...good, "connect-protocol-version": "9" }, known],
  ["a timeout that is none", 400, getSession, { ...good, "connect-timeout-ms": "-5" }, known],
  ["a timeout of 11 digits", 400, getSession, { ...good, "connect-timeout-ms": "10000000000" }, known],
  ["a timeout past the maximum", 400, getSession, { ...good, "connect-timeout-ms": "300001" }, known],
  ["metadata that is reserved", 400, getSession, { ...good, "grpc-status": "0" }, known],
  ["metadata that is no base64", 400, getSession, { ...good, "a-bin": "%%%" }, known],
  ["an unknown encoding", 501, getSession, { ...good, "content-encoding": "zstd" }, known],
  ["another type", 415, getSession, { ...good, "content-type": "text/plain" }, known],
  ["another spelling", 404, `${getSession}/`, good, known],
  ["too long a key", 400, getSession, { ...good, "idempotency-key": "k".repeat(300) }, known],
])("%s is answered %i, byte for byte as the adapter answers it", async (_, status, path, headers, body) => {
  const [ours, theirs] = [await ask(short, path, headers, body), await ask(adapter, path, headers, body)];
  expect(comparable(ours)).toEqual(comparable(theirs));
  expect(ours.status).toBe(status);
});

test("an answer over the limit is refused, with its reason", async () => {
  const { status, body } = await ask(short, sendTurn, good, turn("too large"));
  expect(status).toBe(429);
  expect(body).toContain("RESPONSE_TOO_LARGE");
});

test("what bodies held is given back", async () => {
  await expect.poll(() => budget.used).toBe(0);
});

test("a body that comes in pieces is read as one that comes at once", async () => {
  const path = getSession;
  const answered = await new Promise<Answer>((resolve, reject) => {
    const headers = { ...good, "content-length": known.byteLength };
    const request = http.request({ host: "127.0.0.1", port: short.port, path, method: "POST", headers, agent: false });
    request.on("error", reject);
    request.on("response", async (response) => {
      const chunks = await response.toArray();
      resolve({
        status: response.statusCode,
        headers: response.headers,
        body: masked(Buffer.concat(chunks).toString("latin1")),
      });
    });
    request.write(known.subarray(0, 5), () => setImmediate(() => request.end(known.subarray(5))));
  });
  expect(comparable(answered)).toEqual(comparable(await ask(short, path, good, known)));
});

test("a connection is used again after it, call by call", async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const ports = new Set<number | undefined>();
  for (let call = 0; call < 20; call++) {
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const options = { host: "127.0.0.1", port: short.port, path: getSession, method: "POST", headers: good, agent };
      const request = http.request(options, (response) => {
        ports.add(response.socket.localPort);
        response.resume().on("end", () => resolve(response.statusCode));
      });
      request.on("error", reject);
      request.end(known);
    });
    expect(status).toBe(200);
  }
  expect(ports.size).toBe(1);
  agent.destroy();
});
