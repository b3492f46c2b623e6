import * as http2 from "node:http2";
import { plainAddress } from "./connection-gate.ts";
import type { EdgeLimits } from "./edge-limits.ts";
import type { EdgeHandler } from "./edge-request.ts";
import { type Abuse, createSessionGuard, type SessionGuard } from "./session-guard.ts";

const { NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_NO_ERROR } = http2.constants;

/** How long what runs on an abusive session may go on. */
const abuseGraceMs = 10_000;

/** How often sessions are looked at, at most. */
const sweepMs = 1_000;

/** An HTTP/2 server that listens on nothing, and its sessions. */
export interface GuardedHttp2Server {
  readonly server: http2.Http2Server;
  sessions(): readonly http2.ServerHttp2Session[];
}

/** Options that Node has and its types lack. */
interface UntypedOptions {
  readonly maxSessionInvalidFrames: number;
  readonly maxSessionRejectedStreams: number;
}

/**
 * An HTTP/2 server that listens on nothing: connections are handed to it, in
 * plain text or over TLS.
 *
 * A session that abuses the protocol gets GOAWAY with ENHANCE_YOUR_CALM and no
 * more streams; the streams that it has may end, so that one bad caller behind
 * a proxy does not kill its neighbours' calls. Node's own counter of resets is
 * kept as a backstop only, because it cuts the session at once.
 */
export function createHttp2Server(options: {
  readonly limits: EdgeLimits;
  readonly serve: EdgeHandler;
  /** Called once a session. */
  readonly onAbuse: (source: string, abuse: Abuse) => void;
}): GuardedHttp2Server {
  const { limits } = options;
  const serverOptions: http2.ServerOptions & UntypedOptions = {
    settings: {
      enablePush: false,
      maxConcurrentStreams: limits.maxStreamsPerConnection,
      maxHeaderListSize: limits.maxHeaderBytes,
    },
    maxSessionInvalidFrames: limits.maxInvalidFrames,
    maxSessionRejectedStreams: limits.maxRejectedStreams,
    maxSettings: limits.maxSettings,
    // The pseudo-header fields count as well.
    maxHeaderListPairs: limits.maxHeaders + 5,
    maxSessionMemory: limits.maxSessionMemoryMiB,
    streamResetBurst: 10 * limits.maxResets,
    streamResetRate: Math.max(1, Math.ceil((limits.maxResets * 1_000) / limits.floodWindowMs)),
  };
  const server = http2.createServer(serverOptions, (request, response) => {
    // After the answer the rest of a body is dropped, but not for ever.
    response.once("finish", () => {
      if (request.complete || request.stream.closed) return;
      const timer = setTimeout(() => request.stream.close(NGHTTP2_NO_ERROR), limits.lingerMs);
      request.stream.once("close", () => clearTimeout(timer));
    });
    options.serve(request, response);
  });
  const sessions = new Map<http2.ServerHttp2Session, { readonly guard: SessionGuard; readonly source: string }>();

  server.on("session", (session) => {
    const jitter = 1 + (Math.random() * 2 - 1) * limits.sessionAgeJitter;
    // Known now; the session has no socket any more when it was cut.
    const source = plainAddress(session.socket?.remoteAddress);
    const guard = createSessionGuard(limits, performance.now(), limits.sessionMaxAgeMs * jitter);
    sessions.set(session, { guard, source });
    let abused = false;
    const report = (abuse: Abuse | undefined) => {
      if (abuse === undefined || abused) return;
      abused = true;
      options.onAbuse(source, abuse);
      dismiss(session, NGHTTP2_ENHANCE_YOUR_CALM, guard.openStreams === 0 ? 0 : abuseGraceMs);
    };
    session.on("stream", (stream) => {
      guard.streamOpened(performance.now());
      let reset = false;
      stream.once("aborted", () => {
        reset = true;
      });
      stream.once("close", () => report(guard.streamClosed(performance.now(), reset)));
    });
    session.on("ping", () => report(guard.ping(performance.now(), session.socket?.bytesWritten ?? 0)));
    session.on("remoteSettings", () => report(guard.settings(performance.now())));
    session.on("error", (error: NodeJS.ErrnoException) => {
      // Node's and nghttp2's own limits, and broken frames, end here.
      if (error.code === "ERR_HTTP2_SESSION_ERROR" || error.code === "ERR_HTTP2_ERROR") {
        if (!abused) options.onAbuse(source, "protocol");
        abused = true;
      }
    });
    session.once("close", () => sessions.delete(session));
  });

  const sweep = setInterval(
    () => {
      const now = performance.now();
      for (const [session, { guard, source }] of sessions) {
        const verdict = guard.sweep(now, session.socket?.bytesRead ?? 0);
        if (verdict.kind === "cut") {
          options.onAbuse(source, verdict.abuse);
          sessions.delete(session);
          dismiss(session, NGHTTP2_ENHANCE_YOUR_CALM, 0);
        } else if (verdict.kind === "retire" && !session.closed) {
          dismiss(session, NGHTTP2_NO_ERROR, limits.sessionGraceMs);
        }
      }
    },
    Math.min(sweepMs, limits.checkIntervalMs),
  ).unref();
  server.once("close", () => clearInterval(sweep));

  return { server, sessions: () => [...sessions.keys()] };
}

/** Tells a session to go away; cuts it when its streams have ended, or after `graceMs`. */
function dismiss(session: http2.ServerHttp2Session, code: number, graceMs: number): void {
  if (session.destroyed) return;
  session.goaway(code);
  session.close();
  const timer = setTimeout(() => session.destroy(), graceMs);
  session.once("close", () => clearTimeout(timer));
}
