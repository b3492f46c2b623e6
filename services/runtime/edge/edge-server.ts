import type { Server as Http1Server, IncomingMessage } from "node:http";
import type { Http2Server } from "node:http2";
import * as net from "node:net";
import type { Duplex } from "node:stream";
import * as tls from "node:tls";
import { AppError } from "../errors/app-error.ts";
import { newId } from "../ids/id.ts";
import type { Logger } from "../log/log.ts";
import { createAuthorityRule } from "./authority.ts";
import { createConnectionGate, plainAddress } from "./connection-gate.ts";
import { answerEarly } from "./early-refusal.ts";
import { type EdgeLimits, edgeLimits } from "./edge-limits.ts";
import { type EdgeHandler, type EdgeIncoming, type EdgeResponse, setEdgeRequest } from "./edge-request.ts";
import { asksForWebSocket, createHttp1Server } from "./http1-server.ts";
import { createHttp2Server } from "./http2-server.ts";
import { findPortHolder, PortInUseError } from "./port-in-use.ts";
import { authorityOf, checkHead, dropInternalFields, type HeadRefusal, sourceAddress } from "./request-head.ts";
import type { Abuse } from "./session-guard.ts";

/** Certificate and key, in PEM. */
export interface EdgeTls {
  readonly key: string | Buffer;
  readonly cert: string | Buffer;
  /** `TLSv1.3` unless said otherwise; 1.2 is offered with ECDHE and AEAD only. */
  readonly minVersion?: "TLSv1.2" | "TLSv1.3";
}

/** Takes over a connection that asks for another protocol. It owns the socket from then on. */
export type UpgradeHandler = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;

export interface EdgeServerOptions {
  /** Port 0 takes a free one. */
  readonly listen: { readonly host: string; readonly port: number };
  readonly tls?: EdgeTls;
  readonly log: Logger;
  readonly limits?: Partial<EdgeLimits>;
  readonly handler: EdgeHandler;
  /** Told once of each connection that abuses the protocol. Must not throw or wait. */
  readonly onAbuse?: (source: string, abuse: Abuse) => void;
  /** Without it a WebSocket upgrade is answered with 501. */
  readonly onUpgrade?: UpgradeHandler;
  /** Host names, without port, that are served besides those of `createAuthorityRule`. Others are answered with 421. */
  readonly authorities?: readonly string[];
  /** Addresses or CIDR blocks of proxies whose `X-Forwarded-For` counts; none by default. */
  readonly trustedProxies?: readonly string[];
  /** Whether callers' `traceparent` is kept; false by default. */
  readonly trustTraceparent?: boolean;
}

/** Gauges, and counters since the start. */
export interface EdgeStats {
  readonly connections: number;
  readonly sessions: number;
  readonly requests: number;
  /** Connections refused or cut, by cause. */
  readonly rejected: Readonly<Record<RejectionCause, number>>;
}

/** Why a connection was refused or cut. */
export type RejectionCause = "process" | "source" | "first_byte" | "handshake" | "request" | "abuse";

export interface EdgeServer {
  readonly host: string;
  readonly port: number;
  /** Where it is reached, for example `http://127.0.0.1:8010`. */
  readonly address: string;
  stats(): EdgeStats;
  /**
   * Stops accepting, tells HTTP/2 sessions to go away, lets requests end for at
   * most `graceMs`, then cuts the rest. Idempotent.
   */
  close(graceMs: number): Promise<void>;
}

/** What no request of HTTP/1.1 begins with, and every session of HTTP/2 does. */
const http2Prefix = Buffer.from("PRI");

/**
 * Starts the one kind of server that faces strangers: HTTP/1.1 and HTTP/2 on
 * one port, in plain text by looking at the first bytes (`PRI` begins HTTP/2
 * with prior knowledge, RFC 9113 §3.3), over TLS by ALPN.
 *
 * Every limit of `EdgeLimits` that belongs to transport holds for whatever
 * handler stands behind it. Requests reach the handler with one valid
 * authority, without fields that only our own processes may send, and with an
 * `EdgeRequest`; responses carry the request id and the security headers of an
 * API, and no banner.
 *
 * @throws PortInUseError naming who holds the port, where that can be known
 */
export async function createEdgeServer(options: EdgeServerOptions): Promise<EdgeServer> {
  const limits: EdgeLimits = Object.freeze({ ...edgeLimits, ...options.limits });
  const { log } = options;
  const proxies = blockList(options.trustedProxies ?? []);
  const gate = createConnectionGate(limits, proxies);
  const sockets = new Set<net.Socket>();
  /** Those that have not said anything yet. */
  const silent = new Set<net.Socket>();
  const rejected: Record<RejectionCause, number> = {
    process: 0,
    source: 0,
    first_byte: 0,
    handshake: 0,
    request: 0,
    abuse: 0,
  };
  const authorities = createAuthorityRule({
    host: options.listen.host,
    named: options.authorities ?? [],
  });
  const misdirected = createMisdirectedLog(log);
  let requests = 0;
  let draining = false;

  function serve(request: EdgeIncoming, response: EdgeResponse): void {
    requests += 1;
    response.once("close", () => {
      requests -= 1;
      if (draining) http1.closeIdleConnections();
    });
    request.on("error", ignoreCut);
    response.on("error", ignoreCut);
    const known = {
      requestId: newId("req"),
      source: sourceAddress(request, proxies),
      traceparent: options.trustTraceparent === true ? String(request.headers.traceparent ?? "") : "",
    };
    setEdgeRequest(request, known);
    setHygieneHeaders(response, known.requestId, options.tls !== undefined);
    if (draining && request.httpVersionMajor === 1) response.setHeader("connection", "close");
    const refusal = checkHead(request, limits);
    if (refusal !== undefined) {
      answerRefusal(request, response, refusal);
      return;
    }
    const authority = authorityOf(request) ?? "";
    if (!authorities.admits(authority)) {
      misdirected.note(authority, known.source);
      const failure = new AppError("HOST_NOT_SERVED", "the request names a host that is not served here");
      answerEarly(request, response, 421, failure);
      return;
    }
    if (options.onUpgrade === undefined && asksForWebSocket(request)) {
      answerEarly(request, response, 501, new AppError("UNIMPLEMENTED", "WebSocket is not served here"));
      return;
    }
    dropInternalFields(request.headers);
    try {
      options.handler(request, response);
    } catch (error) {
      log.error({ err: error, request_id: known.requestId }, "handler threw");
      if (response.headersSent) response.destroy();
      else answerRefusal(request, response, { status: 500, detail: "internal error" });
    }
  }

  const http1: Http1Server = createHttp1Server({
    limits,
    serve,
    upgrade: options.onUpgrade,
    onRejected(source, cause) {
      rejected.request += 1;
      if (cause === "late") options.onAbuse?.(source, "slow_request");
    },
  });
  const { server: http2, sessions } = createHttp2Server({
    limits,
    serve,
    onAbuse(source, abuse) {
      rejected.abuse += 1;
      log.warn({ abuse, source }, "conn.abuse");
      options.onAbuse?.(source, abuse);
    },
  });

  /** HTTP/1.1 answers a caller that has closed its half (RFC 9112 §9.6); a session of HTTP/2 ends with either half. */
  function hand(socket: net.Socket, server: Http1Server | Http2Server): void {
    socket.allowHalfOpen = server === http1;
    server.emit("connection", socket);
  }

  /** Decides the protocol of a connection by its first bytes, which must come in time; TLS has agreed on it before. */
  function switchProtocol(socket: net.Socket, agreed?: Http1Server | Http2Server): void {
    const timer = setTimeout(() => {
      rejected.first_byte += 1;
      socket.destroy();
    }, limits.firstByteTimeoutMs);
    // Kept here until it is told: what is unshifted makes the socket readable again at once, and for ever.
    let head = Buffer.alloc(0);
    const giveUp = () => socket.destroy();
    function look(): void {
      const chunk: Buffer | null = socket.read();
      if (chunk === null) return;
      head = Buffer.concat([head, chunk]);
      const isHttp2 = head.subarray(0, 3).equals(http2Prefix);
      const undecided = !isHttp2 && http2Prefix.subarray(0, head.length).equals(head);
      if (undecided && agreed === undefined) return;
      clearTimeout(timer);
      silent.delete(socket);
      socket.off("readable", look);
      socket.off("end", giveUp);
      socket.unshift(head);
      hand(socket, agreed ?? (isHttp2 ? http2 : http1));
    }
    silent.add(socket);
    socket.once("close", () => {
      clearTimeout(timer);
      silent.delete(socket);
    });
    socket.once("end", giveUp);
    socket.on("readable", look);
  }

  const secure = options.tls === undefined ? undefined : createSecureServer(options.tls, limits);
  secure?.on("secureConnection", (socket) => switchProtocol(socket, socket.alpnProtocol === "h2" ? http2 : http1));
  secure?.on("tlsClientError", (_error, socket) => {
    rejected.handshake += 1;
    socket.destroy();
  });

  const acceptor = net.createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    socket.on("error", ignoreCut);
    const admission = gate.admit(plainAddress(socket.remoteAddress));
    if (!admission.admitted) {
      rejected[admission.reason] += 1;
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.once("close", () => {
      sockets.delete(socket);
      admission.release();
    });
    if (secure === undefined) switchProtocol(socket);
    else secure.emit("connection", socket);
  });

  const { host } = options.listen;
  const port = await listen(acceptor, host, options.listen.port);
  acceptor.on("error", (error) => log.error({ err: error }, "accepting failed"));

  let closing: Promise<void> | undefined;
  async function close(graceMs: number): Promise<void> {
    draining = true;
    const closed = new Promise<void>((resolve) => acceptor.close(() => resolve()));
    http1.close();
    http1.closeIdleConnections();
    for (const socket of silent) socket.destroy();
    for (const session of sessions()) session.close();
    const cut = setTimeout(() => {
      for (const session of sessions()) session.destroy();
      for (const socket of sockets) socket.destroy();
    }, graceMs);
    await closed;
    // Node calls a connection closed a moment before it says so.
    await Promise.all([...sessions(), ...sockets].map((open) => new Promise((resolve) => open.once("close", resolve))));
    clearTimeout(cut);
    http2.close();
    secure?.close();
  }

  return {
    host,
    port,
    address: `${options.tls === undefined ? "http" : "https"}://${net.isIPv6(host) ? `[${host}]` : host}:${port}`,
    stats: () => ({ connections: gate.open, sessions: sessions().length, requests, rejected: { ...rejected } }),
    close(graceMs) {
      closing ??= close(graceMs);
      return closing;
    },
  };
}

const misdirectedLineMs = 60_000;

/** Tells the operator, once a minute, that callers use a name which is not served, and what to do if it is ours. */
function createMisdirectedLog(log: Logger): { note(authority: string, source: string): void } {
  let lineAtMs = Number.NEGATIVE_INFINITY;
  let unsaid = 0;
  return {
    note(authority, source) {
      unsaid += 1;
      const nowMs = performance.now();
      if (nowMs - lineAtMs < misdirectedLineMs) return;
      log.warn(
        { authority, source, count: unsaid, remedy: "if the name is yours, add it to CADRE_AUTHORITIES" },
        "a host that is not served was asked for",
      );
      lineAtMs = nowMs;
      unsaid = 0;
    },
  };
}

/** A connection that breaks is the peer's business; whoever reads or writes learns of it by its own means. */
function ignoreCut(): void {}

function blockList(blocks: readonly string[]): net.BlockList {
  const list = new net.BlockList();
  for (const block of blocks) {
    const [address = "", prefix] = block.split("/");
    const family = net.isIPv6(address) ? "ipv6" : "ipv4";
    if (prefix === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(prefix), family);
  }
  return list;
}

function createSecureServer(options: EdgeTls, limits: EdgeLimits): tls.Server {
  return tls.createServer({
    key: options.key,
    cert: options.cert,
    minVersion: options.minVersion ?? "TLSv1.3",
    // Only for 1.2; the suites of 1.3 are all AEAD.
    ciphers: [
      "TLS_AES_128_GCM_SHA256",
      "TLS_AES_256_GCM_SHA384",
      "TLS_CHACHA20_POLY1305_SHA256",
      "ECDHE-ECDSA-AES128-GCM-SHA256",
      "ECDHE-RSA-AES128-GCM-SHA256",
      "ECDHE-ECDSA-AES256-GCM-SHA384",
      "ECDHE-RSA-AES256-GCM-SHA384",
      "ECDHE-ECDSA-CHACHA20-POLY1305",
      "ECDHE-RSA-CHACHA20-POLY1305",
    ].join(":"),
    honorCipherOrder: true,
    ALPNProtocols: ["h2", "http/1.1"],
    handshakeTimeout: limits.tlsHandshakeTimeoutMs,
  });
}

async function listen(server: net.Server, host: string, port: number): Promise<number> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host, port }, () => {
        server.off("error", reject);
        resolve();
      });
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    throw new PortInUseError(host, port, await findPortHolder(port), error);
  }
  const address = server.address();
  return typeof address === "object" && address !== null ? address.port : port;
}

/** What each answer of an API says to browsers; pages of the console say more. */
function setHygieneHeaders(response: EdgeResponse, requestId: string, secure: boolean): void {
  response.setHeader("x-request-id", requestId);
  response.setHeader("x-content-type-options", "nosniff");
  response.setHeader("cache-control", "no-store");
  response.setHeader("referrer-policy", "no-referrer");
  response.setHeader("cross-origin-resource-policy", "same-origin");
  if (secure) response.setHeader("strict-transport-security", "max-age=31536000; includeSubDomains");
}

function answerRefusal(
  request: EdgeIncoming,
  response: EdgeResponse,
  { status, detail }: Omit<HeadRefusal, "status"> & { readonly status: number },
): void {
  if (request.httpVersionMajor === 1) response.setHeader("connection", "close");
  response.setHeader("content-type", "text/plain; charset=utf-8");
  response.statusCode = status;
  // The two classes share the method, but not its overloads.
  (response as { end(body: string): unknown }).end(`${detail}\n`);
}
