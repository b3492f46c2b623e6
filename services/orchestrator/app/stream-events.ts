import type { SessionEvent } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { SessionStore } from "../store/session-store.ts";
import type { EventFeed } from "./event-feed.ts";

/** How many events are read from the table at once. */
const pageSize = 200;

export interface StreamEventsDeps {
  readonly sessions: Pick<SessionStore, "readEvents">;
  readonly feed: EventFeed;
  /** Aborts when the process stops. */
  readonly stopping: AbortSignal;
  /** How long nothing is sent at most, in milliseconds. */
  readonly keepaliveMs: number;
}

/** What to read, and from where. Ids are UUIDs as text. */
export interface StreamPosition {
  readonly orgId: string;
  readonly sessionId: string;
  /** Exclusive. */
  readonly afterSeq: number;
}

/**
 * The events of a session in order, without a gap or a repetition: first those
 * in the table, then those that are stored from now on. Undefined stands for a
 * keepalive. Ends when the signal aborts.
 *
 * @throws AppError SESSION_NOT_FOUND, SESSION_DELETED when it is deleted
 * meanwhile, SHUTTING_DOWN when the process stops
 */
export async function* streamEvents(
  deps: StreamEventsDeps,
  { orgId, sessionId, afterSeq }: StreamPosition,
  signal: AbortSignal,
): AsyncGenerator<SessionEvent | undefined> {
  const ending = AbortSignal.any([signal, deps.stopping]);
  // Opened before the first look, so that nothing falls between the two.
  const reader = deps.feed.open(sessionId);
  let last = afterSeq;
  let reading = true;
  let known = false;
  try {
    for (;;) {
      while (reading) {
        if (ending.aborted) break;
        const page = await deps.sessions.readEvents(orgId, sessionId, last, pageSize);
        if (page === undefined) {
          throw known
            ? new AppError("SESSION_DELETED", "the session was deleted")
            : new AppError("SESSION_NOT_FOUND", "no such session");
        }
        // The caller learns at once that the stream stands, also when nothing happens.
        if (!known && page.length === 0) yield undefined;
        known = true;
        for (const event of page) {
          yield event;
          last = Number(event.seq);
        }
        reading = page.length === pageSize;
      }
      if (deps.stopping.aborted) throw new AppError("SHUTTING_DOWN", "the process is shutting down");
      if (signal.aborted) return;
      const news = await reader.next(deps.keepaliveMs, ending);
      if (news === undefined) {
        if (!ending.aborted) yield undefined;
        continue;
      }
      if (news.type === "look") {
        reading = true;
        continue;
      }
      for (const event of news.events) {
        const seq = Number(event.seq);
        if (seq <= last) continue;
        if (seq > last + 1) {
          reading = true;
          break;
        }
        yield event;
        last = seq;
      }
    }
  } finally {
    reader.close();
  }
}
