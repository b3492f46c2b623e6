import { create } from "@bufbuild/protobuf";
import type { Value } from "@bufbuild/protobuf/wkt";
import { RunChange, type RunChanged, RunChangedSchema } from "@cadre/gen/cadre/events/v1/run_pb";
import type { FailureReason } from "../../runtime/errors/app-error.ts";
import { reasonNumber } from "../../runtime/errors/failure.ts";
import type { Entry } from "../domain/entry.ts";
import { factId } from "../domain/step-id.ts";
import { toValue } from "../store/proto-values.ts";
import { type JournaledEntry, metadataOf } from "./fact-metadata.ts";

/** A run with this label states its output with its end. */
const outputLabel = { name: "cadre.publish", value: "output" } as const;
/** What an output may weigh that is stated, in bytes: an event has 1,000,000 for all of it. */
const maxOutputBytes = 512 * 1024;

/** The fact that an entry states about its run; undefined for an entry that is of no concern to others. */
export function toRunChanged(journaled: JournaledEntry): RunChanged | undefined {
  const { runId, seq, entry, origin } = journaled;
  const change = changeOf(entry);
  if (change === undefined) return undefined;
  const output = origin.labels[outputLabel.name] === outputLabel.value ? outputOf(entry) : undefined;
  return create(RunChangedSchema, {
    metadata: metadataOf(journaled, factId(runId, "run", seq), seq),
    runId,
    change: change.change,
    ...(change.reason === undefined ? {} : { reason: reasonNumber(change.reason) }),
    ...(output === undefined ? {} : { output }),
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

/** The output of a run of a graph; undefined if it has none, or one that is too large for a fact. */
function outputOf({ body }: Entry): Value | undefined {
  if (body.type !== "graph.ended" || body.end.state !== "succeeded") return undefined;
  const { value } = body.end.output;
  if (value === undefined || Buffer.byteLength(JSON.stringify(value)) > maxOutputBytes) return undefined;
  return toValue(value);
}
