import { execFile } from "node:child_process";
import * as http2 from "node:http2";
import * as net from "node:net";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { create, fromJson, toBinary } from "@bufbuild/protobuf";
import { HealthService } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { type SessionEvent, SessionEventSchema } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import {
  type SendTurnRequest,
  SendTurnRequestSchema,
  SessionService,
  type StreamEventsRequest,
  type StreamEventsResponse,
} from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { ErrorInfoSchema, QuotaFailureSchema, RetryInfoSchema } from "@cadre/gen/google/rpc/error_details_pb";
import { Health } from "@cadre/gen/grpc/health/v1/health_pb";
import { Code, ConnectError, createClient, type HandlerContext, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type GatewayWorld, startGatewayWorld } from "../../test/support/gateway-world.ts";
import { AppError } from "../runtime/errors/app-error.ts";
import { newId } from "../runtime/ids/id.ts";
import { requestContext } from "../runtime/rpc/request-context.ts";

let world: GatewayWorld;
let url: string;
const sessionId = newId("ses");
const turnId = newId("run");
const toolId = newId("tool");

/** What the fake behind the gateway saw, and how it is told to behave. */
const seen: { keys: string[]; streams: StreamEventsRequest[]; ended: Promise<unknown>[]; sent: SendTurnRequest[] } = {
  keys: [],
  streams: [],
  ended: [],
  sent: [],
};
const events = Array.from({ length: 6 }, (_, index) => toEvent(BigInt(index + 1)));

function toEvent(seq: bigint): SessionEvent {
  const bodies: SessionEvent["body"][] = [
    { case: "turnStarted", value: { text: "größer\u2028als\n«1»", model: "scripted" } as never },
    { case: "textDelta", value: { attempt: 1, text: "日本語 🧑‍🚀 \r\n\r\ndata: x" } as never },
    { case: "toolStarted", value: { tool: "calculator", arguments: { a: "[DONE]" } } as never },
    {
      case: "toolEnded",
      value: {
        tool: "calculator",
        outcome: { case: "result", value: { kind: { case: "numberValue", value: 4 } } },
      } as never,
    },
    { case: "attemptDiscarded", value: { attempt: 1 } as never },
    { case: "turnEnded", value: { state: 3, answer: "4" } as never },
  ];
  const body = bodies[Number(seq - 1n) % bodies.length];
  return create(SessionEventSchema, { seq, sessionId, turnId, body } as never);
}

async function* streamEvents(
  request: StreamEventsRequest,
  context: HandlerContext,
): AsyncGenerator<Partial<StreamEventsResponse>> {
  if (request.sessionId !== sessionId) throw new AppError("SESSION_NOT_FOUND", "no such session");
  seen.streams.push(request);
  const { signal } = requestContext(context.values);
  const ended = new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  seen.ended.push(ended);
  yield {};
  for (const event of events) if (event.seq > request.afterSeq) yield { event };
  if (request.afterSeq === 100n) throw new AppError("UNAVAILABLE", "the log cannot be read", { retryAfterMs: 2_500 });
  if (request.afterSeq !== 0n && request.afterSeq < 90n) return;
  await ended;
}

beforeAll(async () => {
  world = await startGatewayWorld({
    settings: { CADRE_CORS_ORIGINS: "https://app.example.com", CADRE_AUTHORITIES: "a" },
    logLevel: "info",
    sessions: {
      getSession(request) {
        if (request.sessionId !== sessionId) throw new AppError("SESSION_NOT_FOUND", "no such session");
        return { session: { sessionId, title: "größer 🧑‍🚀", labels: { b: "1" }, lastSeq: 2n ** 63n } };
      },
      createSession(request, context) {
        seen.keys.push(requestContext(context.values).idempotencyKey);
        return { session: { sessionId, title: request.title, labels: request.labels } };
      },
      listSessions: ({ pageSize }) => ({ sessions: [], nextPageToken: `${pageSize}` }),
      deleteSession: () => ({}),
      sendTurn(request, context) {
        seen.sent.push(request);
        context.responseHeader.set("cadre-idempotent-replay", "true");
        context.responseHeader.set("x-internal", "secret");
        if (request.text === "limit") {
          throw new AppError("RATE_LIMITED", "too many turns", {
            retryAfterMs: 1_200,
            quotas: [{ subject: "org", limit: "turns", value: 5n, description: "five turns" }],
          });
        }
        if (request.text === "bug") throw new Error("postgres://user:geheim@host/db");
        if (request.text === "slow") {
          // Deaf: it never answers, and only notes that it was told to end.
          const { signal } = requestContext(context.values);
          seen.ended.push(new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true })));
          return new Promise(() => {});
        }
        return { turn: { turnId, sessionId, text: request.text } };
      },
      streamEvents,
    },
    tools: {
      async *callTool() {
        yield { part: { case: "output", value: "line\n" } } as const;
        yield { part: { case: "result", value: { kind: { case: "stringValue", value: "✓" } } } } as const;
      },
    },
  });
  url = world.gateway.url;
});

afterAll(() => world?.stop());

beforeEach(() => {
  seen.keys.length = seen.streams.length = seen.ended.length = seen.sent.length = 0;
});

const member = { authorization: "Bearer member.test.key" };
const json = { ...member, "content-type": "application/json" };

function post(path: string, body: unknown, header: Record<string, string> = json): Promise<Response> {
  return fetch(url + path, {
    method: "POST",
    headers: header,
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
}

interface ErrorAnswer {
  readonly error: {
    readonly code: number;
    readonly status: string;
    readonly reason: string;
    readonly message: string;
    readonly details: readonly Readonly<Record<string, unknown>>[];
    readonly request_id: string;
  };
}

async function errorOf(response: Response): Promise<ErrorAnswer["error"]> {
  return ((await response.json()) as ErrorAnswer).error;
}

describe("REST", () => {
  test("a GET answers Protobuf JSON with the contract's names, 64-bit numbers as texts", async () => {
    const response = await fetch(`${url}/v1/sessions/${sessionId}`, { headers: member });
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("application/json; charset=utf-8");
    expect(response.headers.get("cadre-version")).toBe("1.2.3");
    expect(response.headers.get("x-request-id")).toMatch(/^req_/);
    const body = (await response.json()) as { session: Record<string, unknown> };
    expect(body.session).toMatchObject({
      session_id: sessionId,
      title: "größer 🧑‍🚀",
      last_seq: "9223372036854775808",
      busy: false,
    });
  });

  test("path, query and body reach the method, and the idempotency key with them", async () => {
    const listed = await fetch(`${url}/v1/sessions?page_size=7`, { headers: member });
    expect(await listed.json()).toEqual({ sessions: [], next_page_token: "7" });
    const made = await post(
      "/v1/sessions",
      { title: "a", labels: { __proto__x: "y" } },
      { ...json, "idempotency-key": "k-1" },
    );
    expect(await made.json()).toMatchObject({ session: { title: "a", labels: { __proto__x: "y" } } });
    expect(seen.keys).toEqual(["k-1"]);
    await post(`/v1/sessions/${sessionId}/turns`, {
      text: "x",
      on_busy: "ON_BUSY_ENQUEUE",
      answer_schema: { type: "object" },
    });
    expect(seen.sent).toEqual([
      create(SendTurnRequestSchema, { sessionId, text: "x", onBusy: 2, answerSchema: { type: "object" } }),
    ]);
  });

  test("of a peer's headers pass those that are ours to say", async () => {
    const response = await post(`/v1/sessions/${sessionId}/turns`, { text: "x" });
    expect(response.headers.get("cadre-idempotent-replay")).toBe("true");
    expect(response.headers.get("x-internal")).toBeNull();
  });

  test("a failure has the one form, with its details and without the id", async () => {
    const response = await fetch(`${url}/v1/sessions/${newId("ses")}`, { headers: member });
    expect(response.status).toBe(404);
    const error = await errorOf(response);
    expect(error).toEqual({
      code: 404,
      status: "not_found",
      reason: "SESSION_NOT_FOUND",
      message: "no such session",
      details: [{ "@type": "type.googleapis.com/google.rpc.Help", links: [{ description: "List the sessions." }] }],
      request_id: response.headers.get("x-request-id"),
    });
    const limited = await post(`/v1/sessions/${sessionId}/turns`, { text: "limit" });
    expect([limited.status, limited.headers.get("retry-after")]).toEqual([429, "2"]);
    expect((await errorOf(limited)).details).toContainEqual({
      "@type": "type.googleapis.com/google.rpc.QuotaFailure",
      violations: [{ subject: "org", description: "five turns", quota_id: "turns", quota_value: "5" }],
    });
  });

  test("a bug behind the gateway says nothing of itself", async () => {
    const response = await post(`/v1/sessions/${sessionId}/turns`, { text: "bug" });
    expect(response.status).toBe(500);
    const error = await errorOf(response);
    expect([error.reason, error.message]).toEqual(["INTERNAL", "internal error"]);
    expect(JSON.stringify(error)).not.toContain("geheim");
  });

  test.each([
    ["no credential", {}],
    ["an unknown one", { authorization: "Bearer a.b.c" }],
    ["another scheme", { authorization: "Basic YTpi" }],
  ])("%s: 401, with how to do better", async (_, header) => {
    const response = await fetch(`${url}/v1/sessions/${sessionId}`, { headers: header as Record<string, string> });
    expect([response.status, response.headers.get("www-authenticate")]).toEqual([401, "Bearer"]);
    expect((await errorOf(response)).reason).toBe("UNAUTHENTICATED");
  });

  test("scope and role are judged as for any other protocol", async () => {
    const noScope = await fetch(`${url}/v1/sessions`, { headers: { authorization: "Bearer none.test.key" } });
    expect([noScope.status, (await errorOf(noScope)).reason]).toEqual([403, "SCOPE_MISSING"]);
    const noRole = await fetch(`${url}/v1/health`, { headers: member });
    expect([noRole.status, (await errorOf(noRole)).reason]).toEqual([403, "ROLE_TOO_LOW"]);
  });

  test.each<[string, string, string, RequestInit, number, string]>([
    ["no such route", "GET", "/v1/nothing", {}, 404, "ROUTE_NOT_FOUND"],
    ["another spelling", "GET", `/v1/Sessions/${sessionId}`, {}, 404, "ROUTE_NOT_FOUND"],
    ["an escaped letter", "GET", `/v1/%73essions/${sessionId}`, {}, 404, "ROUTE_NOT_FOUND"],
    ["a slash at the end", "GET", "/v1/sessions/", {}, 404, "ROUTE_NOT_FOUND"],
    ["a path parameter", "GET", `/v1/sessions/${sessionId};a=b`, {}, 404, "ROUTE_NOT_FOUND"],
    ["a secret file", "GET", "/.env", {}, 404, "ROUTE_NOT_FOUND"],
    ["the profiler's path", "GET", "/debug/profile", {}, 404, "ROUTE_NOT_FOUND"],
    ["another method", "PUT", "/v1/sessions", {}, 405, "UNIMPLEMENTED"],
    ["no media type", "POST", "/v1/sessions", { body: new Uint8Array([123, 125]) }, 415, "MALFORMED_MESSAGE"],
    [
      "a form",
      "POST",
      "/v1/sessions",
      { body: "a=b", headers: { "content-type": "application/x-www-form-urlencoded" } },
      415,
      "MALFORMED_MESSAGE",
    ],
    [
      "plain text",
      "POST",
      "/v1/sessions",
      { body: "{}", headers: { "content-type": "text/plain" } },
      415,
      "MALFORMED_MESSAGE",
    ],
    [
      "another charset",
      "POST",
      "/v1/sessions",
      { body: "{}", headers: { "content-type": "application/json; charset=utf-16" } },
      415,
      "MALFORMED_MESSAGE",
    ],
    [
      "an unknown encoding",
      "POST",
      "/v1/sessions",
      { body: "{}", headers: { ...json, "content-encoding": "zstd" } },
      415,
      "MALFORMED_MESSAGE",
    ],
    ["cut JSON", "POST", "/v1/sessions", { body: '{"title":', headers: json }, 400, "MALFORMED_MESSAGE"],
    ["bytes after the end", "POST", "/v1/sessions", { body: "{}x", headers: json }, 400, "MALFORMED_MESSAGE"],
    [
      "a key twice",
      "POST",
      "/v1/sessions",
      { body: '{"title":"a","title":"b"}', headers: json },
      400,
      "MALFORMED_MESSAGE",
    ],
    ["a wrong type", "POST", "/v1/sessions", { body: '{"title":1}', headers: json }, 400, "MALFORMED_MESSAGE"],
    ["an unknown field", "POST", "/v1/sessions", { body: '{"state":"x"}', headers: json }, 400, "MALFORMED_MESSAGE"],
    ["NaN", "POST", "/v1/sessions", { body: '{"title":NaN}', headers: json }, 400, "MALFORMED_MESSAGE"],
    [
      "UTF-16",
      "POST",
      "/v1/sessions",
      { body: Buffer.from('{"title":"a"}', "utf16le"), headers: json },
      400,
      "MALFORMED_MESSAGE",
    ],
    [
      "deep nesting",
      "POST",
      `/v1/sessions/${sessionId}/turns`,
      { body: `{"answer_schema":${'{"a":'.repeat(5_000)}1${"}".repeat(5_001)}`, headers: json },
      400,
      "MALFORMED_MESSAGE",
    ],
    [
      "a broken rule",
      "POST",
      `/v1/sessions/${sessionId}/turns`,
      { body: '{"text":""}', headers: json },
      400,
      "INVALID_ARGUMENT",
    ],
    ["an id of another kind", "GET", `/v1/sessions/${turnId}`, {}, 400, "INVALID_ARGUMENT"],
    [
      "too long a key",
      "POST",
      "/v1/sessions",
      { body: "{}", headers: { ...json, "idempotency-key": "k".repeat(300) } },
      400,
      "INVALID_METADATA",
    ],
    [
      "too long a timeout",
      "GET",
      "/v1/sessions",
      { headers: { ...member, "connect-timeout-ms": "9999999999" } },
      400,
      "INVALID_TIMEOUT",
    ],
  ])("%s is refused", async (_, method, path, init, status, reason) => {
    const response = await fetch(url + path, { headers: member, ...init, method });
    const error = await errorOf(response);
    expect([response.status, error.code, error.reason]).toEqual([status, status, reason]);
    expect(error.request_id).toMatch(/^req_/);
  });

  test("a body is at most 4 MiB, plain and inflated", async () => {
    const path = `/v1/sessions/${sessionId}/turns`;
    const large = JSON.stringify({ text: "x".repeat(4 * 1024 * 1024) });
    const plain = await post(path, large);
    expect([plain.status, (await errorOf(plain)).reason]).toEqual([429, "MESSAGE_TOO_LARGE"]);
    const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024, 0x20));
    const inflated = await fetch(url + path, {
      method: "POST",
      headers: { ...json, "content-encoding": "gzip" },
      body: bomb,
    });
    expect([inflated.status, (await errorOf(inflated)).reason]).toEqual([429, "MESSAGE_TOO_LARGE"]);
    const good = gzipSync(JSON.stringify({ text: "zip" }));
    const zipped = await fetch(url + path, {
      method: "POST",
      headers: { ...json, "content-encoding": "gzip" },
      body: good,
    });
    expect(zipped.status).toBe(200);
    expect(seen.sent.map(({ text }) => text)).toEqual(["zip"]);
  });

  test("HEAD answers as GET without a body; OPTIONS and 405 say what a path takes", async () => {
    const path = `${url}/v1/sessions/${sessionId}`;
    const get = await fetch(path, { headers: member });
    const head = await fetch(path, { headers: member, method: "HEAD" });
    expect([head.status, await head.text()]).toEqual([200, ""]);
    expect(head.headers.get("content-length")).toBe(get.headers.get("content-length"));
    const options = await fetch(path, { method: "OPTIONS" });
    expect([options.status, options.headers.get("allow")]).toEqual([204, "GET, HEAD, DELETE, OPTIONS"]);
    expect((await fetch(`${url}/v1/nothing`, { method: "OPTIONS" })).status).toBe(404);
    const wrong = await fetch(path, { method: "PATCH", headers: member });
    expect([wrong.status, wrong.headers.get("allow")]).toEqual([405, "GET, HEAD, DELETE, OPTIONS"]);
    const stream = await fetch(`${path}/events`, { headers: member, method: "HEAD" });
    expect([stream.status, stream.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
    const refused = await fetch(`${path}/events`, { method: "HEAD" });
    expect(refused.status).toBe(401);
  });

  test("a target that is no path is no route", async () => {
    for (const target of ["http://127.0.0.1/v1/sessions", "//v1/sessions", "/x/../v1/sessions", "/v1/./sessions"]) {
      expect(
        await statusOf(
          `GET ${target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer member.test.key\r\nConnection: close\r\n\r\n`,
        ),
      ).toBe(404);
    }
  });

  test("a lost peer is unavailable, and nothing of the way there is said", async () => {
    const lonely = await startGatewayWorld();
    try {
      await lonely.tools.close(0);
      const response = await fetch(`${lonely.gateway.url}/v1/tools`, { headers: member });
      expect([response.status, response.headers.get("retry-after")]).toEqual([503, "1"]);
      expect(await errorOf(response)).toMatchObject({
        reason: "UNAVAILABLE",
        message: "the service behind the gateway cannot be reached",
      });
      expect((await fetch(`${lonely.gateway.url}/health`)).status).toBe(503);
      const breakdown = await fetch(`${lonely.gateway.url}/v1/health`, {
        headers: { authorization: "Bearer admin.test.key" },
      });
      const { state, services } = (await breakdown.json()) as {
        state: string;
        services: { service: string; state: string }[];
      };
      expect(state).toBe("SERVING_STATE_NOT_SERVING");
      expect(
        services.filter((service) => service.state !== "SERVING_STATE_SERVING").map(({ service }) => service),
      ).toEqual(["tools"]);
    } finally {
      await lonely.stop();
    }
  });

  test("a deadline holds, and ends the call behind the gateway", async () => {
    const header = { ...json, "connect-timeout-ms": "200" };
    const response = await post(`/v1/sessions/${sessionId}/turns`, { text: "slow" }, header);
    expect([response.status, (await errorOf(response)).reason]).toEqual([504, "DEADLINE_EXCEEDED"]);
    await Promise.all(seen.ended);
    expect(seen.ended).toHaveLength(1);
  });

  test("a caller who leaves ends the call behind the gateway", async () => {
    const gone = new AbortController();
    const call = fetch(`${url}/v1/sessions/${sessionId}/turns`, {
      method: "POST",
      headers: json,
      body: '{"text":"slow"}',
      signal: gone.signal,
    });
    await expect.poll(() => seen.ended.length).toBe(1);
    gone.abort();
    await expect(call).rejects.toThrow("aborted");
    await Promise.all(seen.ended);
  });
});

describe("event streams", () => {
  test("frames are numbered and typed, and one line each whatever the text", async () => {
    const frames = await readFrames(await openEvents({}), 6);
    expect(frames.map(({ id, event }) => [id, event])).toEqual([
      ["1", "turn.started"],
      ["2", "text.delta"],
      ["3", "tool.started"],
      ["4", "tool.ended"],
      ["5", "attempt.discarded"],
      ["6", "turn.ended"],
    ]);
    expect(JSON.parse(frames[1]?.data ?? "")).toMatchObject({
      seq: "2",
      text_delta: { text: "日本語 🧑‍🚀 \r\n\r\ndata: x" },
    });
  });

  test("a reader who takes nothing holds the gateway no more than a buffer, and the others up not at all", async () => {
    let produced = 0;
    const busy = await startGatewayWorld({
      sessions: {
        async *streamEvents() {
          for (let seq = 1n; seq < 200_000n; seq++) {
            produced += 1;
            yield { event: create(SessionEventSchema, { seq, traceId: "x".repeat(32), requestId: "y".repeat(512) }) };
          }
        },
      },
    });
    const { port } = new URL(busy.gateway.url);
    const deaf = net.connect(Number(port), "127.0.0.1");
    try {
      deaf.pause();
      deaf.write(
        `GET /v1/sessions/${sessionId}/events HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer member.test.key\r\n\r\n`,
      );
      await expect.poll(() => produced).toBeGreaterThan(1_000);
      let before = -1;
      await expect
        .poll(
          () => {
            const still = produced === before;
            before = produced;
            return still;
          },
          { interval: 300 },
        )
        .toBe(true);
      // The sockets of both ends hold some megabytes, the gateway one at most; all of it would be 130.
      expect(produced).toBeLessThan(50_000);
      expect((await fetch(`${busy.gateway.url}/health`)).status).toBe(200);
    } finally {
      deaf.destroy();
      await busy.stop();
    }
  });

  test("the header begins at once and says how to reconnect", async () => {
    const response = await openEvents({});
    expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(response.headers.get("cache-control")).toBe("no-store");
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    const { value } = await reader.read();
    expect(Buffer.from(value ?? []).toString()).toMatch(/^retry: 1000\n\n/);
    await reader.cancel();
  });

  test("Last-Event-ID resumes, and counts for more than the query", async () => {
    expect((await readFrames(await openEvents({ "last-event-id": "4" }), 9)).map(({ id }) => id)).toEqual(["5", "6"]);
    expect((await readFrames(await openEvents({}, "?after_seq=3"), 9)).map(({ id }) => id)).toEqual(["4", "5", "6"]);
    expect(
      (await readFrames(await openEvents({ "last-event-id": "5" }, "?after_seq=1"), 9)).map(({ id }) => id),
    ).toEqual(["6"]);
    expect(seen.streams.map(({ afterSeq }) => afterSeq)).toEqual([4n, 3n, 5n]);
    const wrong = await openEvents({ "last-event-id": "x" });
    expect([wrong.status, (await errorOf(wrong)).reason]).toEqual([400, "INVALID_METADATA"]);
  });

  test("curl reads it, too, and resumes", async () => {
    const read = (header: string) =>
      promisify(execFile)("curl", [
        "-sN",
        "-H",
        "authorization: Bearer member.test.key",
        "-H",
        header,
        `${url}/v1/sessions/${sessionId}/events`,
      ]);
    const { stdout } = await read("last-event-id: 2");
    expect([...stdout.matchAll(/^id: (\d+)$/gm)].map((match) => match[1])).toEqual(["3", "4", "5", "6"]);
    expect(stdout).toContain(": keepalive\n\n");
  });

  test("a refusal before the first event is one in HTTP", async () => {
    const unknown = await fetch(`${url}/v1/sessions/${newId("ses")}/events`, { headers: member });
    expect([unknown.status, (await errorOf(unknown)).reason]).toEqual([404, "SESSION_NOT_FOUND"]);
    expect((await fetch(`${url}/v1/sessions/${sessionId}/events`)).status).toBe(401);
  });

  test("a failure later on is the last event", async () => {
    const text = await (await openEvents({ "last-event-id": "100" })).text();
    const frames = parseFrames(text);
    expect(frames.at(-1)?.event).toBe("error");
    expect(JSON.parse(frames.at(-1)?.data ?? "")).toMatchObject({ error: { code: 503, reason: "UNAVAILABLE" } });
  });

  test("a reader who leaves ends the stream behind the gateway", async () => {
    const gone = new AbortController();
    const response = await fetch(`${url}/v1/sessions/${sessionId}/events`, { headers: member, signal: gone.signal });
    await readFrames(response, 6);
    gone.abort();
    await Promise.all(seen.ended);
    expect(seen.ended).toHaveLength(1);
  });

  test("events are the same over Connect, gRPC, gRPC-Web, SSE and lines of JSON", async () => {
    const overRest = (await readFrames(await openEvents({}), 6)).map(({ data }) =>
      fromJson(SessionEventSchema, JSON.parse(data)),
    );
    const lines = await (await openEvents({ accept: "application/x-ndjson" }, "?after_seq=1")).text();
    const overLines = lines
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { event?: never }).event)
      .filter((event) => event !== undefined);
    expect(overLines.map((event) => fromJson(SessionEventSchema, event))).toEqual(overRest.slice(1));
    const bytes = (list: readonly SessionEvent[]) =>
      list.map((event) => Buffer.from(toBinary(SessionEventSchema, event)).toString("hex"));
    for (const transport of transports()) {
      const received: SessionEvent[] = [];
      for await (const { event } of createClient(SessionService, transport).streamEvents(
        { sessionId },
        { headers: member },
      )) {
        if (event !== undefined) received.push(event);
        if (received.length === 6) break;
      }
      expect(bytes(received)).toEqual(bytes(overRest));
    }
    expect(bytes(overRest)).toEqual(bytes(events));
  });

  test("other streams are lines of JSON, or events where they are asked for", async () => {
    const developer = { authorization: "Bearer developer.test.key", "content-type": "application/json" };
    const call = (accept: Record<string, string>) =>
      post(`/v1/tools/${toolId}/call`, { arguments: {} }, { ...developer, ...accept });
    const lines = await call({});
    expect(lines.headers.get("content-type")).toBe("application/x-ndjson; charset=utf-8");
    expect(await lines.text()).toBe('{"output":"line\\n"}\n{"result":"✓"}\n');
    const stream = await call({ accept: "text/event-stream" });
    expect(parseFrames(await stream.text()).map(({ data }) => data)).toEqual([
      '{"output":"line\\n"}',
      '{"result":"✓"}',
    ]);
    expect((await post(`/v1/tools/${toolId}/call`, {})).status).toBe(403);
  });
});

describe("one port", () => {
  test("takes Connect, gRPC and gRPC-Web, by HTTP/1.1 and HTTP/2", async () => {
    for (const transport of transports()) {
      const client = createClient(SessionService, transport);
      expect(await client.getSession({ sessionId }, { headers: member })).toMatchObject({
        session: { title: "größer 🧑‍🚀" },
      });
      const failure = await client
        .sendTurn({ sessionId, text: "limit" }, { headers: member })
        .catch((thrown: unknown) => ConnectError.from(thrown));
      if (!(failure instanceof ConnectError)) throw new Error("the call did not fail");
      expect(failure.code).toBe(Code.ResourceExhausted);
      expect(failure.findDetails(ErrorInfoSchema)[0]?.reason).toBe("RATE_LIMITED");
      expect(failure.findDetails(QuotaFailureSchema)[0]?.violations[0]?.quotaId).toBe("turns");
      expect(failure.findDetails(RetryInfoSchema)[0]?.retryDelay).toMatchObject({ seconds: 1n, nanos: 200_000_000 });
    }
  });

  test("internal services are not there, by any protocol", async () => {
    for (const path of [
      "/cadre.tools.v1.ToolExecutionService/ResolveTools",
      "/cadre.gateway.v1.ReadinessService/GetReadiness",
      "/cadre.credentials.v1.AuthenticationService/Authenticate",
    ]) {
      const response = await post(path, {}, { ...json, authorization: "Bearer owner.test.key" });
      expect(response.status).toBe(404);
    }
  });

  test("the standard health check answers strangers, and nobody learns more", async () => {
    for (const transport of transports()) {
      const client = createClient(Health, transport);
      expect((await client.check({})).status).toBe(1);
      await expect(client.check({ service: "nobody" })).rejects.toMatchObject({ code: Code.NotFound });
      await expect.poll(async () => (await client.check({ service: SessionService.typeName })).status).toBe(1);
    }
    expect(await (await fetch(`${url}/health`)).text()).toBe('{"status":"SERVING"}');
  });

  test("health and metrics for those who may know", async () => {
    const admin = { authorization: "Bearer admin.test.key" };
    const client = createClient(HealthService, createConnectTransport({ baseUrl: url, httpVersion: "1.1" }));
    const { services, mode } = await client.getHealth({}, { headers: admin });
    expect([mode, services.map(({ service }) => service)]).toEqual([
      "embedded",
      ["credentials", "events", "gateway", "orchestrator", "registry", "tools"],
    ]);
    const metrics = await fetch(`${url}/metrics`, { headers: admin });
    expect(metrics.headers.get("content-type")).toBe("text/plain; charset=utf-8");
    expect(await metrics.text()).toContain("cadre_rpc_duration_seconds_bucket");
    expect((await fetch(`${url}/metrics`)).status).toBe(401);
    expect((await fetch(`${url}/metrics`, { headers: member })).status).toBe(403);
  });

  test("the front page and the description are for anyone", async () => {
    expect(await (await fetch(`${url}/`)).json()).toEqual({
      name: "cadre",
      version: "1.2.3",
      openapi: "/openapi.json",
    });
    const openapi = await fetch(`${url}/openapi.json`);
    expect(await openapi.json()).toMatchObject({ openapi: "3.1.0", info: { version: "1.2.3" } });
    const wrong = await fetch(`${url}/openapi.json`, { method: "POST" });
    expect([wrong.status, wrong.headers.get("allow")]).toEqual([405, "GET, HEAD, OPTIONS"]);
  });

  test("REST goes by HTTP/2 as well", async () => {
    const session = http2.connect(url);
    const stream = session.request({ ":path": `/v1/sessions/${sessionId}`, authorization: member.authorization });
    const [status, body] = await new Promise<[number, string]>((resolve, reject) => {
      let code = 0;
      let text = "";
      stream.setEncoding("utf8");
      stream.on("response", (header) => (code = header[":status"] ?? 0));
      stream.on("data", (chunk: string) => (text += chunk));
      stream.on("end", () => resolve([code, text]));
      stream.on("error", reject);
    });
    session.close();
    expect([status, (JSON.parse(body) as { session: { title: string } }).session.title]).toEqual([200, "größer 🧑‍🚀"]);
  });

  test("the log has no value of a request, and no credential", async () => {
    await post(`/v1/sessions/${sessionId}/turns`, { text: "geheim-17" });
    await post("/v1/sessions", '{"title":"geheim-18"');
    const log = JSON.stringify(world.lines);
    expect(log).toContain("SessionService/SendTurn");
    expect(log).not.toMatch(/geheim-1|member\.test\.key/);
  });
});

describe("pages of other origins", () => {
  const origin = "https://app.example.com";
  const preflight = { "access-control-request-method": "POST", "access-control-request-headers": "authorization" };

  test("a named origin may call by every protocol, and read what it needs", async () => {
    for (const path of ["/v1/sessions", "/cadre.orchestrator.v1.SessionService/GetSession"]) {
      const answer = await fetch(url + path, { method: "OPTIONS", headers: { origin, ...preflight } });
      expect([answer.status, answer.headers.get("access-control-allow-origin")]).toEqual([204, origin]);
      expect(answer.headers.get("access-control-allow-headers")).toMatch(
        /Connect-Protocol-Version.*X-Grpc-Web.*Authorization/i,
      );
      expect(answer.headers.get("access-control-allow-credentials")).toBeNull();
    }
    const response = await fetch(`${url}/v1/sessions`, { headers: { ...member, origin } });
    expect(response.headers.get("access-control-allow-origin")).toBe(origin);
    expect(response.headers.get("access-control-expose-headers")).toContain("X-Request-Id");
    expect(response.headers.get("vary")).toContain("Origin");
    const call = await post(
      "/cadre.orchestrator.v1.SessionService/GetSession",
      { sessionId },
      { ...json, origin, "connect-protocol-version": "1" },
    );
    expect([call.status, call.headers.get("access-control-allow-origin")]).toEqual([200, origin]);
  });

  test.each([
    "https://evil.example",
    "null",
    "https://sub.app.example.com",
    "https://app.example.com.evil.example",
    "http://app.example.com",
  ])("%s is told nothing", async (other) => {
    const answer = await fetch(`${url}/v1/sessions`, { method: "OPTIONS", headers: { origin: other, ...preflight } });
    expect(answer.headers.get("access-control-allow-origin")).toBeNull();
    const response = await fetch(`${url}/v1/sessions`, { headers: { ...member, origin: other } });
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
  });
});

test("half of a TLS setting is no setting", async () => {
  await expect(startGatewayWorld({ settings: { CADRE_TLS_CERT_FILE: "cert.pem" } })).rejects.toThrow("set together");
});

describe("the operator's door", () => {
  test("answers on loopback without a credential", async () => {
    const { adminUrl } = world.gateway;
    expect(new URL(adminUrl).hostname).toBe("127.0.0.1");
    expect(await (await fetch(`${adminUrl}/metrics`)).text()).toContain("cadre_rpc_duration_seconds_bucket");
    expect(await (await fetch(`${adminUrl}/health`)).json()).toMatchObject({
      state: "SERVING_STATE_SERVING",
      mode: "embedded",
    });
    expect((await fetch(`${adminUrl}/nothing`)).status).toBe(404);
  });

  test("takes one CPU profile at a time", async () => {
    const profile = () => fetch(`${world.gateway.adminUrl}/debug/profile?seconds=1`);
    const [first, second] = await Promise.all([profile(), profile()]);
    expect([first.status, second.status].sort()).toEqual([200, 429]);
    const taken = (await (first.status === 200 ? first : second).json()) as { nodes: unknown[] };
    expect(taken.nodes.length).toBeGreaterThan(0);
    expect((await fetch(`${world.gateway.adminUrl}/debug/profile?seconds=61`)).status).toBe(400);
  });

  test("is not for pages: not by another name, not from another site, not by POST", async () => {
    const { port } = new URL(world.gateway.adminUrl);
    expect(
      await statusOf("GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", Number(port)),
    ).toBe(403);
    expect(
      await statusOf(
        `GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nSec-Fetch-Site: cross-site\r\nConnection: close\r\n\r\n`,
        Number(port),
      ),
    ).toBe(403);
    expect((await fetch(`${world.gateway.adminUrl}/metrics`, { method: "POST" })).status).toBe(501);
  });
});

function transports(): readonly Transport[] {
  const options = { baseUrl: url };
  return [
    createConnectTransport({ ...options, httpVersion: "1.1" }),
    createConnectTransport({ ...options, httpVersion: "2", useBinaryFormat: false }),
    createGrpcTransport(options),
    createGrpcWebTransport({ ...options, httpVersion: "1.1" }),
  ];
}

function openEvents(header: Record<string, string>, query = ""): Promise<Response> {
  return fetch(`${url}/v1/sessions/${sessionId}/events${query}`, { headers: { ...member, ...header } });
}

interface Frame {
  readonly id: string | undefined;
  readonly event: string | undefined;
  readonly data: string;
}

/** Reads as the specification says, until there are so many frames or the end. */
async function readFrames(response: Response, count: number): Promise<Frame[]> {
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    text += decoder.decode(value, { stream: true });
    const frames = parseFrames(text);
    if (done || frames.length >= count) {
      await reader.cancel();
      return frames;
    }
  }
}

function parseFrames(text: string): Frame[] {
  return text
    .split(/\n\n/)
    .slice(0, -1)
    .map(
      (frame) =>
        new Map(frame.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)])),
    )
    .filter((fields) => fields.has("data"))
    .map((fields) => ({ id: fields.get("id"), event: fields.get("event"), data: fields.get("data") ?? "" }));
}

/** The status of a request that no client would send. */
async function statusOf(request: string, port = Number(new URL(url).port)): Promise<number> {
  const socket = net.connect(port, "127.0.0.1");
  socket.write(request);
  let text = "";
  for await (const chunk of socket) text += String(chunk);
  return Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1]);
}
