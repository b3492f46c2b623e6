import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { RunChange, type RunChanged, RunChangedSchema } from "@cadre/gen/cadre/events/v1/run_pb";
import type { FailureReason } from "../../runtime/errors/app-error.ts";
import { reasonNumber } from "../../runtime/errors/failure.ts";
import { traceIdOf } from "../../runtime/telemetry/traceparent.ts";
import type { Entry } from "../domain/entry.ts";
import { runFactId } from "../domain/step-id.ts";
import type { JournaledEntry } from "./turn-facts.ts";

/** The fact that an entry states about its run; undefined for an entry that is of no concern to others. */
export function toRunChanged({ orgId, runId, seq, entry, origin }: JournaledEntry): RunChanged | undefined {
  const change = changeOf(entry);
  if (change === undefined) return undefined;
  return create(RunChangedSchema, {
    metadata: {
      eventId: runFactId(runId, seq),
      seq: BigInt(seq),
      at: timestampFromMs(entry.atMs),
      orgId,
      traceId: traceIdOf(origin.traceparent),
      requestId: origin.requestId,
    },
    runId,
    change: change.change,
    ...(change.reason === undefined ? {} : { reason: reasonNumber(change.reason) }),
  });
}

const ends = {
  succeeded: RunChange.SUCCEEDED,
  failed: RunChange.FAILED,
  cancelled: RunChange.CANCELLED,
} as const;

function changeOf({ body }: Entry): { readonly change: RunChange; readonly reason?: FailureReason } | undefined {
  switch (body.type) {
    case "run.started":
    case "graph.started":
      return { change: RunChange.STARTED };
    case "run.parked":
      return { change: RunChange.PARKED, reason: body.parked.reason };
    case "run.resumed":
      return { change: RunChange.RESUMED };
    case "run.ended":
    case "graph.ended": {
      const { end } = body;
      return { change: ends[end.state], ...(end.state === "failed" ? { reason: end.error.reason } : {}) };
    }
    default:
      return undefined;
  }
}
