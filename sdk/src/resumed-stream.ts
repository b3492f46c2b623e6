// Invariants of a resumed stream:
// 1. An event is yielded only if its number is above the last one's; in a log
//    without gaps, only if it is the last one's plus one. So none is lost,
//    repeated or out of order, whatever the connections did.
// 2. Every wait is bounded: for a message by the keepalive timeout, between
//    connections by the back-off, for a server that is gone by the reconnect
//    timeout.
// 3. However the iteration ends, the connection that it held is ended, too.

import { createConnectionWatch } from "./connection-watch.ts";
import { CadreError, toCadreError } from "./error.ts";
import { backoffMs, delay, isPassing } from "./retry.ts";

/** How a stream is taken up again after it broke. */
export interface ReconnectOptions {
  /**
   * How long to try after a break until the iteration throws, in milliseconds;
   * 5 minutes unless said, `Infinity` for as long as the signal lets it.
   */
  readonly maxElapsedMs?: number;
  /** The longest wait before the first new connection, in milliseconds; 100 unless said. Doubles with each. */
  readonly initialDelayMs?: number;
  /** What the longest wait grows to, in milliseconds; 3,000 unless said. */
  readonly maxDelayMs?: number;
  /**
   * How long a connection may be silent before it counts as broken, in
   * milliseconds; 45,000 unless said. The server sends something every 15 seconds.
   */
  readonly silenceTimeoutMs?: number;
}

/** A break in a stream that is about to be taken up again. */
export interface StreamBreak {
  /** What broke it. */
  readonly error: CadreError;
  /** How many connections failed in a row, from 1. */
  readonly attempt: number;
  /** How long the SDK waits until it connects again, in milliseconds. */
  readonly delayMs: number;
}

/** What can be said about a stream of events. */
export interface EventsOptions {
  /** The number of the last event that is known; the stream begins after it. 0n, the start, unless said. */
  readonly afterSeq?: bigint | undefined;
  /** Ends the iteration, which then throws `CANCELLED`. */
  readonly signal?: AbortSignal | undefined;
  /** How the stream is taken up again. */
  readonly reconnect?: ReconnectOptions | undefined;
  /** Told of each break, for example to show that one waits. */
  readonly onBreak?: ((info: StreamBreak) => void) | undefined;
}

/** A stream of numbered events that can be read from any number on. */
export interface ResumableStream<Event extends { readonly seq: bigint }> {
  /** Opens a connection; a message without an event is a keepalive. */
  open(afterSeq: bigint, signal: AbortSignal): Promise<AsyncIterable<{ readonly event?: Event }>>;
  /** Whether a number that is left out is an event that got lost. */
  readonly hasNoGaps: boolean;
  /** Whether nothing follows an event; the iteration then ends. */
  isLast(event: Event): boolean;
  /** Whether the server ends a stream in order when nothing follows; else that is a break, too. */
  readonly hasEnd: boolean;
}

const defaults: Required<ReconnectOptions> = {
  maxElapsedMs: 300_000,
  initialDelayMs: 100,
  maxDelayMs: 3_000,
  // Three keepalives: one may be late, two are a coincidence.
  silenceTimeoutMs: 45_000,
};

// A connection that lived this long was sound, even if it brought no event.
const soundAfterMs = 5_000;

// A hole that is there again on a new connection is the server's, not the wire's.
const maxGaps = 3;

/** Reads a stream up to its last event, over any number of connections. */
export async function* readResumed<Event extends { readonly seq: bigint }>(
  stream: ResumableStream<Event>,
  { afterSeq = 0n, signal, reconnect, onBreak }: EventsOptions = {},
): AsyncGenerator<Event, void, undefined> {
  const policy = { ...defaults, ...reconnect };
  let seq = afterSeq;
  let failures = 0;
  let gaps = 0;
  let brokenAt: number | undefined;
  for (;;) {
    const connection = new AbortController();
    const onAbort = () => connection.abort(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    if (signal?.aborted === true) onAbort();
    const connectedAt = Date.now();
    let error: CadreError;
    try {
      const alive = createConnectionWatch(connection, policy.silenceTimeoutMs);
      const opened = await alive(stream.open(seq, connection.signal));
      const messages = opened[Symbol.asyncIterator]();
      for (;;) {
        const next = await alive(messages.next());
        if (next.done === true && stream.hasEnd) return;
        if (next.done === true) throw new CadreError("UNAVAILABLE", "the server ended the stream");
        const { event } = next.value;
        if (event === undefined || event.seq <= seq) continue;
        if (stream.hasNoGaps && event.seq !== seq + 1n) {
          gaps += 1;
          throw new CadreError(gaps >= maxGaps ? "DATA_LOSS" : "UNAVAILABLE", `events after ${seq} are missing`);
        }
        seq = event.seq;
        failures = 0;
        gaps = 0;
        brokenAt = undefined;
        yield event;
        if (stream.isLast(event)) return;
      }
    } catch (thrown) {
      error = toCadreError(thrown, signal);
    } finally {
      signal?.removeEventListener("abort", onAbort);
      connection.abort();
    }
    if (!isBreak(error, signal)) throw error;
    const now = Date.now();
    if (now - connectedAt >= soundAfterMs) {
      failures = 0;
      brokenAt = undefined;
    }
    failures += 1;
    brokenAt ??= now;
    const delayMs = backoffMs(failures, policy, error.retryAfterMs);
    if (now + delayMs - brokenAt > policy.maxElapsedMs) throw error;
    onBreak?.({ error, attempt: failures, delayMs });
    await delay(delayMs, signal);
  }
}

/** Whether the stream can go on after it. A cancellation that the caller did not ask for is a reset connection. */
function isBreak(error: CadreError, signal: AbortSignal | undefined): boolean {
  return isPassing(error) || (error.reason === "CANCELLED" && signal?.aborted !== true);
}
