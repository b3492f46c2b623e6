import * as http from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { plainAddress } from "./connection-gate.ts";
import type { EdgeLimits } from "./edge-limits.ts";
import type { EdgeHandler, EdgeIncoming } from "./edge-request.ts";
import type { UpgradeHandler } from "./edge-server.ts";

/** The answer to what the parser refuses, by the error's code; anything else is 400. */
const answers: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: "431 Request Header Fields Too Large",
  HPE_CHUNK_EXTENSIONS_OVERFLOW: "413 Content Too Large",
  ERR_HTTP_REQUEST_TIMEOUT: "408 Request Timeout",
};

/**
 * An HTTP/1.1 server that listens on nothing: connections are handed to it.
 * What its parser refuses is answered in plain text and the connection closed.
 */
export function createHttp1Server(options: {
  readonly limits: EdgeLimits;
  readonly serve: EdgeHandler;
  /** Takes upgrades to WebSocket over; without it they are requests like others. */
  readonly upgrade: UpgradeHandler | undefined;
  /** Called for each connection that is closed because of what it sent, or did not send in time. */
  readonly onRejected: (source: string, cause: "late" | "malformed") => void;
}): http.Server {
  const { limits, upgrade } = options;
  const responding = new WeakMap<Duplex, http.ServerResponse>();
  const lingering = new WeakSet<Duplex>();
  const server = http.createServer(
    {
      headersTimeout: limits.headersTimeoutMs,
      requestTimeout: limits.requestTimeoutMs,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      connectionsCheckingInterval: limits.checkIntervalMs,
      maxHeaderSize: limits.maxHeaderBytes,
      // Node would answer by itself and go on to the next request of the same bytes. The head is checked for it later.
      requireHostHeader: false,
      insecureHTTPParser: false,
      noDelay: true,
      // `Upgrade: h2c`, which curl sends, may be ignored (RFC 9113 §3.1) and is.
      shouldUpgradeCallback: (request) => upgrade !== undefined && asksForWebSocket(request),
    },
    (request, response) => {
      const { socket } = request;
      // What comes after the last answer of a connection is no request, even if it came in the same bytes.
      if (lingering.has(socket) || responding.get(socket)?.getHeader("connection") === "close") return;
      if (!responding.has(socket)) lingerOn(socket, limits.lingerMs, lingering);
      responding.set(socket, response);
      options.serve(request, response);
    },
  );
  server.maxRequestsPerSocket = limits.maxRequestsPerSocket;
  // Node drops fields past this count in silence; the head is counted before the handler instead.
  server.maxHeadersCount = 0;
  if (upgrade !== undefined) server.on("upgrade", upgrade);
  server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
    const source = plainAddress((socket as Socket).remoteAddress);
    options.onRejected(source, error.code === "ERR_HTTP_REQUEST_TIMEOUT" ? "late" : "malformed");
    const response = responding.get(socket);
    const answered = response !== undefined && response.headersSent && !response.writableFinished;
    if (socket.writable && !answered && error.code !== "ECONNRESET") {
      const answer = answers[error.code ?? ""] ?? "400 Bad Request";
      socket.write(`HTTP/1.1 ${answer}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    }
    // Closes after the answer is flushed; a peer that does not read is cut with it.
    socket.end(() => socket.destroy());
    setTimeout(() => socket.destroy(), limits.lingerMs).unref();
  });
  // The timeouts are looked at by a timer that Node starts with listening, which this server never does.
  server.emit("listening");
  return server;
}

/**
 * Node closes a connection as soon as its last answer is written. If a body is
 * still coming, the peer then gets a reset, and often loses the answer (RFC
 * 9112 §9.6). So the half that is done is closed, and the rest read and
 * dropped, for a while.
 */
function lingerOn(socket: Socket, lingerMs: number, lingering: WeakSet<Duplex>): void {
  socket.destroySoon = () => {
    lingering.add(socket);
    socket.end();
    const timer = setTimeout(() => socket.destroy(), lingerMs);
    socket.once("end", () => socket.destroy());
    socket.once("close", () => clearTimeout(timer));
    if (socket.readableEnded) socket.destroy();
  };
}

/** Whether a request asks to go on as a WebSocket. */
export function asksForWebSocket(request: EdgeIncoming): boolean {
  return request.headers.upgrade?.toLowerCase() === "websocket";
}
