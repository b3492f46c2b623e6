import type { SessionEvent } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import type { Caller } from "./caller.ts";
import { CadreError } from "./error.ts";
import { type EventsOptions, readResumed } from "./resumed-stream.ts";

/** Streams the events of a session without end, over any number of connections. */
export async function* streamEvents(
  caller: Caller,
  sessionId: string,
  options?: EventsOptions,
): AsyncGenerator<SessionEvent, never, undefined> {
  const stream = {
    open: (afterSeq: bigint, signal: AbortSignal) =>
      caller.stream(SessionService.method.streamEvents, { sessionId, afterSeq }, signal),
    hasNoGaps: true,
    isLast: () => false,
    hasEnd: false,
  };
  yield* readResumed<SessionEvent>(stream, options);
  throw new CadreError("INTERNAL", "a session's events came to an end");
}
