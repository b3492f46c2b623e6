import * as http from "node:http";
import type { Duplex } from "node:stream";
import type { EdgeLimits } from "./edge-limits.ts";
import type { EdgeHandler } from "./edge-request.ts";
import type { UpgradeHandler } from "./edge-server.ts";

/** The answer to what the parser refuses, by the error's code; anything else is 400. */
const answers: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: "431 Request Header Fields Too Large",
  HPE_CHUNK_EXTENSIONS_OVERFLOW: "413 Content Too Large",
  ERR_HTTP_REQUEST_TIMEOUT: "408 Request Timeout",
};

/** How long a refused connection may take to read its answer. */
const lingerMs = 1_000;

/**
 * An HTTP/1.1 server that listens on nothing: connections are handed to it.
 * What its parser refuses is answered in plain text and the connection closed.
 */
export function createHttp1Server(options: {
  readonly limits: EdgeLimits;
  readonly serve: EdgeHandler;
  readonly upgrade: UpgradeHandler;
  /** Called for each connection that is closed because of what it sent, or did not send in time. */
  readonly onRejected: () => void;
}): http.Server {
  const { limits } = options;
  const responding = new WeakMap<Duplex, http.ServerResponse>();
  const server = http.createServer(
    {
      headersTimeout: limits.headersTimeoutMs,
      requestTimeout: limits.requestTimeoutMs,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      connectionsCheckingInterval: limits.checkIntervalMs,
      maxHeaderSize: limits.maxHeaderBytes,
      requireHostHeader: true,
      insecureHTTPParser: false,
      noDelay: true,
      // `Upgrade: h2c`, which curl sends, may be ignored (RFC 9113 §3.1) and is.
      shouldUpgradeCallback: (request) => request.headers.upgrade?.toLowerCase() === "websocket",
    },
    (request, response) => {
      responding.set(request.socket, response);
      options.serve(request, response);
    },
  );
  server.maxRequestsPerSocket = limits.maxRequestsPerSocket;
  // Node drops fields past this count in silence; the head is counted before the handler instead.
  server.maxHeadersCount = 0;
  server.on("upgrade", (request, socket, head) => options.upgrade(request, socket, head));
  server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
    options.onRejected();
    const response = responding.get(socket);
    const answered = response !== undefined && response.headersSent && !response.writableFinished;
    if (socket.writable && !answered && error.code !== "ECONNRESET") {
      const answer = answers[error.code ?? ""] ?? "400 Bad Request";
      socket.write(`HTTP/1.1 ${answer}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    }
    // Closes after the answer is flushed; a peer that does not read is cut with it.
    socket.end(() => socket.destroy());
    setTimeout(() => socket.destroy(), lingerMs).unref();
  });
  // The timeouts are looked at by a timer that Node starts with listening, which this server never does.
  server.emit("listening");
  return server;
}

/** Answers an upgrade that nobody serves. */
export const refuseUpgrade: UpgradeHandler = (_request, socket) => {
  socket.on("error", () => socket.destroy());
  socket.end("HTTP/1.1 501 Not Implemented\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
};
