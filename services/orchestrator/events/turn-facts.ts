import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { TurnChange, type TurnChanged, TurnChangedSchema } from "@cadre/gen/cadre/events/v1/turn_pb";
import { reasonNumber } from "../../runtime/errors/failure.ts";
import { traceIdOf } from "../../runtime/telemetry/traceparent.ts";
import type { Entry } from "../domain/entry.ts";
import { factId } from "../domain/step-id.ts";

/** Where a run came from. */
export interface RunOrigin {
  /** Empty for a run that is no turn. */
  readonly sessionId: string;
  readonly requestId: string;
  /** Empty if there is none. */
  readonly traceparent: string;
}

/** An entry with what its fact says beside it. */
export interface JournaledEntry {
  readonly orgId: string;
  readonly runId: string;
  /** Its number in the run's journal. */
  readonly seq: number;
  readonly entry: Entry;
  readonly origin: RunOrigin;
}

/** The fact that an entry states about its turn; undefined for an entry that is of no concern to others. */
export function toTurnChanged({ orgId, runId, seq, entry, origin }: JournaledEntry): TurnChanged | undefined {
  const change = changeOf(entry);
  if (change === undefined || origin.sessionId === "") return undefined;
  return create(TurnChangedSchema, {
    metadata: {
      eventId: factId(runId, seq),
      seq: BigInt(change.seq),
      at: timestampFromMs(entry.atMs),
      orgId,
      traceId: traceIdOf(origin.traceparent),
      requestId: origin.requestId,
    },
    sessionId: origin.sessionId,
    turnId: runId,
    change: change.change,
    ...(change.reason === undefined ? {} : { reason: change.reason }),
  });
}

/** `seq` counts the facts of a turn from 1: not the entries, most of which state none. */
function changeOf({ body }: Entry) {
  switch (body.type) {
    case "run.accepted":
      return { change: TurnChange.ACCEPTED, seq: 1, reason: undefined };
    case "run.started":
      return { change: TurnChange.STARTED, seq: 2, reason: undefined };
    case "run.ended": {
      const { end } = body;
      return {
        change: {
          succeeded: TurnChange.SUCCEEDED,
          failed: TurnChange.FAILED,
          cancelled: TurnChange.CANCELLED,
        }[end.state],
        seq: body.started ? 3 : 2,
        reason: end.state === "failed" ? reasonNumber(end.error.reason) : undefined,
      };
    }
    default:
      return undefined;
  }
}
