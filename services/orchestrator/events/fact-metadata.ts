import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { traceIdOf } from "../../runtime/telemetry/traceparent.ts";
import type { Entry } from "../domain/entry.ts";

/** Where a run came from. */
export interface RunOrigin {
  /** Empty for a run that is no turn. */
  readonly sessionId: string;
  readonly requestId: string;
  /** Empty if there is none. */
  readonly traceparent: string;
  /** The caller's own marks; none of a turn. */
  readonly labels: Readonly<Record<string, string>>;
}

/** An entry with what its facts say beside it. */
export interface JournaledEntry {
  readonly orgId: string;
  readonly runId: string;
  /** Its number in the run's journal. */
  readonly seq: number;
  readonly entry: Entry;
  readonly origin: RunOrigin;
}

/**
 * What all facts carry.
 *
 * @param seq its number in the session or run
 */
export function metadataOf({ orgId, entry, origin }: JournaledEntry, eventId: string, seq: number) {
  return {
    eventId,
    seq: BigInt(seq),
    at: timestampFromMs(entry.atMs),
    orgId,
    traceId: traceIdOf(origin.traceparent),
    requestId: origin.requestId,
  };
}
