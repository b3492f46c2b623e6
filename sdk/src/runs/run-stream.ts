import type { RunEvent } from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import { RunService } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import type { Caller } from "../caller.ts";
import { type EventsOptions, readResumed } from "../resumed-stream.ts";

/** Streams the events of a run until it has ended, over any number of connections. */
export function streamRunEvents(
  caller: Caller,
  runId: string,
  options?: EventsOptions,
): AsyncGenerator<RunEvent, void, undefined> {
  const stream = {
    open: (afterSeq: bigint, signal: AbortSignal) =>
      caller.stream(RunService.method.watchRun, { runId, afterSeq }, signal),
    // Numbers are those of the journal, which has entries that are no events.
    hasNoGaps: false,
    isLast: ({ body }: RunEvent) => body.case === "runEnded",
    hasEnd: true,
  };
  return readResumed<RunEvent>(stream, options);
}
