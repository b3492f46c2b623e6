import type { EdgeLimits } from "./edge-limits.ts";

/** What a connection did too often, or too slowly. */
export type Abuse =
  | "resets"
  | "pings"
  | "settings"
  | "header_drip"
  | "preface"
  | "protocol"
  | "slow_request"
  | "slow_body";

/** What the guard is told of a session. Times in milliseconds of one monotonic clock. */
export interface SessionGuard {
  /** The peer opened a stream. */
  streamOpened(nowMs: number): void;
  /** A stream ended; `reset` if the peer gave it up. */
  streamClosed(nowMs: number, reset: boolean): Abuse | undefined;
  /**
   * The peer sent a PING.
   *
   * @param bytesWritten what we have written on the connection so far
   */
  ping(nowMs: number, bytesWritten: number): Abuse | undefined;
  /** The peer sent a SETTINGS frame. */
  settings(nowMs: number): Abuse | undefined;
  /** Looks at what time alone tells. Called about every second. */
  sweep(nowMs: number, bytesRead: number): SweepVerdict;
  readonly openStreams: number;
}

/** What to do with a session. */
export type SweepVerdict =
  | { readonly kind: "keep" }
  /** Tell it to go away, let its streams end. */
  | { readonly kind: "retire"; readonly cause: "age" | "idle" }
  | { readonly kind: "cut"; readonly abuse: Abuse };

const keep: SweepVerdict = { kind: "keep" };

/** A PING's acknowledgement: 9 bytes of frame header and 8 of data. Over TLS a record adds about 22. */
const maxAckBytes = 17 + 22;

/**
 * Counts what an HTTP/2 session costs us beside its requests.
 *
 * 1. Resets count whether or not the handler had begun: the cost is ours.
 * 2. A PING is free after data of ours, because gRPC clients measure bandwidth
 *    with one after each response (gRPC A8 forgives them in the same way).
 * 3. Bytes that arrive over a long time without making up any frame that is
 *    told of here are a header that drips, if no stream is open.
 */
export function createSessionGuard(limits: EdgeLimits, openedMs: number, maxAgeMs: number): SessionGuard {
  const resets = createWindow(limits.maxResets, limits.floodWindowMs);
  const idlePings = createWindow(limits.maxIdlePings, limits.floodWindowMs);
  const streamPings = createWindow(limits.maxStreamPings, limits.floodWindowMs);
  const settingsFrames = createWindow(limits.maxSettingsFrames, limits.floodWindowMs);
  let openStreams = 0;
  let idleSinceMs = openedMs;
  let prefaceSeen = false;
  let writtenBefore = 0;
  let unearnedPings = 0;
  let bytesSeen = 0;
  let eventSinceSweep = false;
  let dripSinceMs: number | undefined;

  return {
    get openStreams() {
      return openStreams;
    },
    streamOpened() {
      openStreams += 1;
      eventSinceSweep = true;
    },
    streamClosed(nowMs, reset) {
      openStreams -= 1;
      if (openStreams === 0) idleSinceMs = nowMs;
      eventSinceSweep = true;
      return reset && !resets.take(nowMs) ? "resets" : undefined;
    },
    ping(nowMs, bytesWritten) {
      eventSinceSweep = true;
      // What we wrote counts as data only if it is more than the answers to the PINGs.
      unearnedPings += 1;
      if (bytesWritten - writtenBefore > (unearnedPings + 1) * maxAckBytes) {
        writtenBefore = bytesWritten;
        unearnedPings = 0;
        idlePings.clear();
        streamPings.clear();
      }
      return (openStreams === 0 ? idlePings : streamPings).take(nowMs) ? undefined : "pings";
    },
    settings(nowMs) {
      eventSinceSweep = true;
      prefaceSeen = true;
      return settingsFrames.take(nowMs) ? undefined : "settings";
    },
    sweep(nowMs, bytesRead) {
      const arrived = bytesRead !== bytesSeen;
      bytesSeen = bytesRead;
      if (!prefaceSeen && nowMs - openedMs >= limits.headersTimeoutMs) return { kind: "cut", abuse: "preface" };
      if (eventSinceSweep || openStreams > 0) dripSinceMs = undefined;
      else if (arrived) {
        if (dripSinceMs !== undefined && nowMs - dripSinceMs >= limits.headersTimeoutMs * 0.9) {
          return { kind: "cut", abuse: "header_drip" };
        }
        dripSinceMs ??= nowMs;
      }
      eventSinceSweep = false;
      if (nowMs - openedMs >= maxAgeMs) return { kind: "retire", cause: "age" };
      if (openStreams === 0 && nowMs - idleSinceMs >= limits.sessionIdleMs) return { kind: "retire", cause: "idle" };
      return keep;
    },
  };
}

/** Admits at most `max` events in each span of `windowMs`, by fixed spans. */
function createWindow(max: number, windowMs: number): { take(nowMs: number): boolean; clear(): void } {
  let startMs = Number.NEGATIVE_INFINITY;
  let count = 0;
  return {
    take(nowMs) {
      if (nowMs - startMs >= windowMs) {
        startMs = nowMs;
        count = 0;
      }
      count += 1;
      return count <= max;
    },
    clear() {
      count = 0;
    },
  };
}
