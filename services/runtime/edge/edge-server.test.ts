import { execFile } from "node:child_process";
import { once } from "node:events";
import * as http2 from "node:http2";
import * as net from "node:net";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { selfSigned } from "../../../test/attack/self-signed.ts";
import { request1, request2 } from "../../../test/attack/wire-client.ts";
import { AppError } from "../errors/app-error.ts";
import { fromConnectError } from "../errors/failure.ts";
import { implement } from "../rpc/implementation.ts";
import { createConnectHandler } from "./connect-handler.ts";
import { edgeRequest } from "./edge-request.ts";
import { createEdgeServer, type EdgeServer, type EdgeServerOptions } from "./edge-server.ts";
import { PortInUseError } from "./port-in-use.ts";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../../..", import.meta.url));
const log = pino({ level: "silent" });
const path = "/cadre.orchestrator.v1.SessionService";

const { handle } = createConnectHandler({
  log,
  interceptors: [],
  implementations: [
    implement(SessionService, {
      getSession(request: { sessionId: string }) {
        if (request.sessionId === "none") throw new AppError("SESSION_NOT_FOUND", "no such session");
        return { session: { sessionId: request.sessionId, title: "t".repeat(5_000) } };
      },
      async *streamEvents(request: { afterSeq: bigint }) {
        for (let seq = 1n; seq <= request.afterSeq; seq++) yield { event: { seq } };
      },
    } as unknown as Parameters<typeof implement<typeof SessionService>>[1]),
  ],
});

/** What the transports of all protocols take. */
interface Options {
  readonly baseUrl: string;
  readonly nodeOptions: { readonly rejectUnauthorized: boolean };
  readonly useBinaryFormat: boolean;
}

function start(options: Partial<EdgeServerOptions> = {}): Promise<EdgeServer> {
  return createEdgeServer({ listen: { host: "127.0.0.1", port: 0 }, log, handler: handle, ...options });
}

describe.each(["plain", "tls"] as const)("%s", (mode) => {
  let server: EdgeServer;
  beforeAll(async () => {
    server = await start(mode === "tls" ? { tls: await selfSigned() } : {});
  });
  afterAll(() => server.close(0));
  const nodeOptions = { rejectUnauthorized: false };

  test.each([
    { by: "HTTP/1.1", flags: ["--http1.1"], version: "1.1" },
    { by: "HTTP/2", flags: [mode === "tls" ? "--http2" : "--http2-prior-knowledge"], version: "2" },
    { by: "an offer to upgrade to HTTP/2", flags: ["--http2"], version: mode === "tls" ? "2" : "1.1" },
    // TLS has no name for 1.0 that both sides speak.
    ...(mode === "tls" ? [] : [{ by: "HTTP/1.0", flags: ["--http1.0"], version: "1.1" }]),
  ])("curl by $by", async ({ flags, version }) => {
    const { stdout } = await run("curl", [
      ...["-sk", ...flags, "-w", "\n%{http_code} %{http_version}", "-H", "content-type: application/json"],
      ...["-H", "connect-protocol-version: 1", "-d", '{"sessionId":"a"}', `${server.address}${path}/GetSession`],
    ]);
    const [body = "", status] = stdout.split("\n");
    expect(JSON.parse(body)).toMatchObject({ session: { sessionId: "a" } });
    expect(status).toBe(`200 ${version}`);
  });

  test.each(["connect", "grpc", "grpcweb"])("buf curl by %s", { timeout: 60_000 }, async (protocol) => {
    const buf = async (method: string, data: string) => {
      const flags = mode === "tls" ? ["-k"] : ["--http2-prior-knowledge"];
      const args = [
        "curl",
        "--schema",
        "proto",
        "--protocol",
        protocol,
        ...flags,
        "-d",
        data,
        `${server.address}${path}/${method}`,
      ];
      return run(`${root}/node_modules/.bin/buf`, args, { cwd: root });
    };
    expect(JSON.parse((await buf("GetSession", '{"sessionId":"a"}')).stdout)).toMatchObject({
      session: { sessionId: "a" },
    });
    expect((await buf("StreamEvents", '{"afterSeq":"3"}')).stdout.match(/"seq"/g)).toHaveLength(3);
    await expect(buf("GetSession", '{"sessionId":"none"}')).rejects.toMatchObject({
      stderr: expect.stringContaining("no such session"),
    });
  });

  test.each([
    {
      by: "Connect over HTTP/1.1",
      create: (options: Options) => createConnectTransport({ ...options, httpVersion: "1.1" }),
    },
    {
      by: "Connect over HTTP/2",
      create: (options: Options) => createConnectTransport({ ...options, httpVersion: "2" }),
    },
    {
      by: "gRPC-Web over HTTP/1.1",
      create: (options: Options) => createGrpcWebTransport({ ...options, httpVersion: "1.1" }),
    },
    {
      by: "gRPC-Web over HTTP/2",
      create: (options: Options) => createGrpcWebTransport({ ...options, httpVersion: "2" }),
    },
    { by: "gRPC over HTTP/2", create: createGrpcTransport },
  ])("a client of $by", async ({ create }) => {
    for (const useBinaryFormat of [true, false]) {
      const options = { baseUrl: server.address, nodeOptions, useBinaryFormat };
      const client = createClient(SessionService, create(options));
      const { session } = await client.getSession({ sessionId: "b".repeat(2_000) });
      expect(session?.sessionId).toHaveLength(2_000);
      const seen: bigint[] = [];
      for await (const { event } of client.streamEvents({ afterSeq: 100n })) seen.push(event?.seq ?? 0n);
      expect(seen).toHaveLength(100);
      const error: unknown = await client.getSession({ sessionId: "none" }).catch((thrown: unknown) => thrown);
      if (!(error instanceof ConnectError)) throw error;
      expect(error.code).toBe(Code.NotFound);
      expect(fromConnectError(error)?.reason).toBe("SESSION_NOT_FOUND");
    }
  });
});

test("with TLS every answer asks for TLS from then on; TLS 1.2 is refused unless it is allowed", async () => {
  const tls = await selfSigned();
  const strict = await start({ tls });
  const lenient = await start({ tls: { ...tls, minVersion: "TLSv1.2" } });
  try {
    const answer = await request1(strict.port, { secure: true, path: "/" });
    expect(answer.headers["strict-transport-security"]).toBe("max-age=31536000; includeSubDomains");
    const old = { secure: true, path: "/", maxVersion: "TLSv1.2" } as Parameters<typeof request1>[1];
    await expect(request1(strict.port, old)).rejects.toThrow(/protocol version/);
    expect((await request1(lenient.port, old)).status).toBe(404);
  } finally {
    await Promise.all([strict.close(0), lenient.close(0)]);
  }
});

test("closing lets what runs end, tells sessions to go away, and accepts nothing more", async () => {
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const server = await start({
    handler: (_request, response) => {
      void released.then(() => (response as { end(text: string): void }).end("done"));
    },
  });
  const session = http2.connect(server.address);
  const goaway = once(session, "goaway");
  const [one, two] = [request1(server.port, { path: "/" }), request2(session, { ":path": "/" })];
  await expect.poll(() => server.stats().requests).toBe(2);
  const idle = net.connect(server.port, "127.0.0.1");
  idle.resume();
  await once(idle, "connect");
  const closed = server.close(10_000);
  expect(server.close(0)).toBe(closed);
  await goaway;
  await expect(request1(server.port, { path: "/" })).rejects.toThrow(/ECONNREFUSED/);
  release();
  expect((await one).bytes.toString()).toBe("done");
  expect((await two).bytes.toString()).toBe("done");
  await closed;
  expect(idle.destroyed || (await once(idle, "close"))).toBeTruthy();
  expect(server.stats()).toMatchObject({ connections: 0, sessions: 0, requests: 0 });
});

test("closing cuts what does not end in time", async () => {
  const server = await start({ handler: () => {} });
  const cut = [request1(server.port, { path: "/" }), request2(server.port, { ":path": "/" })].map((answer) =>
    answer.then(
      ({ status }) => status,
      () => 0,
    ),
  );
  await expect.poll(() => server.stats().requests).toBe(2);
  await server.close(50);
  expect(await Promise.all(cut)).toEqual([0, 0]);
  expect(server.stats()).toMatchObject({ connections: 0, sessions: 0, requests: 0 });
});

test("a port in use is an error that says who has it", async () => {
  const server = await start();
  try {
    const error: unknown = await start({ listen: { host: "127.0.0.1", port: server.port } }).catch(
      (thrown: unknown) => thrown,
    );
    if (!(error instanceof PortInUseError)) throw error;
    expect(error.port).toBe(server.port);
    expect(error.message).toContain(String(server.port));
    expect(error.holder?.pid).toBe(process.pid);
    expect(error.message).toContain(`process ${process.pid}`);
  } finally {
    await server.close(0);
  }
});

describe("hosts that are not served", () => {
  const lines: Record<string, unknown>[] = [];
  let server: EdgeServer;
  beforeAll(async () => {
    const told = pino({ level: "warn" }, { write: (line: string) => void lines.push(JSON.parse(line)) });
    server = await start({ authorities: ["cadre.test"], log: told });
  });
  afterAll(() => server.close(0));

  test("are refused over both versions of HTTP, whatever else is right; ours are served", async () => {
    const statuses = async (host: string) => [
      (await request1(server.port, { path: "/", headers: { host } })).status,
      (await request2(server.port, { ":path": "/", ":authority": host })).status,
    ];
    for (const host of ["cadre.test", "CADRE.test:443", `127.0.0.1:${server.port}`, "x.localhost:1", "127.0.0.1"]) {
      expect(await statuses(host)).toEqual([404, 404]);
    }
    for (const host of ["evil.test", `evil.test:${server.port}`, "192.168.1.5", "127.0.0.1.evil.test"]) {
      expect(await statuses(host)).toEqual([421, 421]);
    }
  });

  test.each([
    ["Connect", { "content-type": "application/proto", "connect-protocol-version": "1" }],
    ["gRPC", { "content-type": "application/grpc" }],
    ["gRPC-Web", { "content-type": "application/grpc-web+proto" }],
    ["plain HTTP", { "content-type": "application/json" }],
  ])("are refused in the form of %s, with nothing of how to be served", async (name, headers) => {
    const target = { method: "POST", path: `${path}/GetSession`, headers: { ...headers, host: "evil.test" } };
    const { status, headers: answered, bytes } = await request1(server.port, target, "x");
    const text = bytes.toString();
    expect(String(answered["x-request-id"])).toMatch(/^req_/);
    expect(text + JSON.stringify(answered)).not.toMatch(/CADRE_|cadre\.test/);
    if (name.startsWith("gRPC")) {
      expect(status).toBe(200);
      expect(answered["grpc-status"]).toBe("7");
      const details = Buffer.from(String(answered["grpc-status-details-bin"]), "base64").toString("latin1");
      expect(details).toContain("HOST_NOT_SERVED");
      return;
    }
    expect(status).toBe(421);
    const body = JSON.parse(text);
    if (name === "Connect") expect(body).toMatchObject({ code: "permission_denied", details: [{}, {}, {}] });
    else expect(body).toMatchObject({ error: { code: 421, status: "permission_denied", reason: "HOST_NOT_SERVED" } });
  });

  test("are told to the operator once a minute, with what to do", () => {
    const told = lines.filter(({ msg }) => msg === "a host that is not served was asked for");
    expect(told).toMatchObject([
      { authority: "evil.test", source: "127.0.0.1", remedy: expect.stringContaining("CADRE_AUTHORITIES") },
    ]);
  });
});

test("a WebSocket is answered with 501 and why", async () => {
  const server = await start();
  try {
    const headers = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13" };
    const { status, headers: answered, bytes } = await request1(server.port, { path: "/", headers });
    expect(status).toBe(501);
    expect(answered).toMatchObject({ connection: "close", "x-content-type-options": "nosniff" });
    const { error } = JSON.parse(bytes.toString());
    expect(error).toMatchObject({ code: 501, reason: "UNIMPLEMENTED", request_id: answered["x-request-id"] });
    const stranger = await request1(server.port, { path: "/", headers: { ...headers, host: "evil.test" } });
    expect(stranger.status).toBe(421);
  } finally {
    await server.close(0);
  }
});

test("forwarded addresses and traces count only from those that are trusted", async () => {
  const seen: { source: string; traceparent: string }[] = [];
  const handler: EdgeServerOptions["handler"] = (request, response) => {
    seen.push(edgeRequest(request));
    (response as { end(): void }).end();
  };
  const headers = { "x-forwarded-for": "6.6.6.6, 10.1.1.1, 127.0.0.9", traceparent: "00-a-b-01" };
  for (const options of [{}, { trustedProxies: ["127.0.0.0/8"], trustTraceparent: true }]) {
    const server = await start({ handler, ...options });
    await request1(server.port, { path: "/", headers });
    await server.close(0);
  }
  expect(seen).toMatchObject([
    { source: "127.0.0.1", traceparent: "" },
    { source: "10.1.1.1", traceparent: "00-a-b-01" },
  ]);
});

test("a handler that throws is answered with 500 and nothing of it", async () => {
  const server = await start({
    handler: () => {
      throw new Error("postgres://u:p@h/db");
    },
  });
  try {
    for (const answer of [await request1(server.port, { path: "/" }), await request2(server.port, { ":path": "/" })]) {
      expect(answer.status).toBe(500);
      expect(answer.bytes.toString()).toBe("internal error\n");
    }
  } finally {
    await server.close(0);
  }
});

test("an old session is told to go away, and its call ends", async () => {
  let release = () => {};
  const server = await start({
    limits: { sessionMaxAgeMs: 300, checkIntervalMs: 50 },
    handler: (_request, response) => {
      release = () => (response as { end(text: string): void }).end("done");
    },
  });
  try {
    const session = http2.connect(server.address);
    const answer = request2(session, { ":path": "/" });
    const [code] = await once(session, "goaway");
    expect(code).toBe(http2.constants.NGHTTP2_NO_ERROR);
    release();
    expect((await answer).bytes.toString()).toBe("done");
    await once(session, "close");
  } finally {
    await server.close(0);
  }
});
