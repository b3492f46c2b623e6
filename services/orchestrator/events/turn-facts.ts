import { create } from "@bufbuild/protobuf";
import { TurnChange, type TurnChanged, TurnChangedSchema } from "@cadre/gen/cadre/events/v1/turn_pb";
import { reasonNumber } from "../../runtime/errors/failure.ts";
import type { Entry } from "../domain/entry.ts";
import { factId } from "../domain/step-id.ts";
import { type JournaledEntry, metadataOf } from "./fact-metadata.ts";

/** The fact that an entry states about its turn; undefined for an entry that is of no concern to others. */
export function toTurnChanged(journaled: JournaledEntry): TurnChanged | undefined {
  const { runId, seq, entry, origin } = journaled;
  const change = changeOf(entry);
  if (change === undefined || origin.sessionId === "") return undefined;
  return create(TurnChangedSchema, {
    metadata: metadataOf(journaled, factId(runId, "turn", seq), change.seq),
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
