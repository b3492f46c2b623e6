import { toBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type RunFilter, RunFilterSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { toUuid } from "../../runtime/ids/id.ts";
import type { RunState } from "../store/append-store.ts";
import type { RunSelection } from "../store/run-read-store.ts";

/** Which runs a filter means; without one, all that have no parent. */
export function toSelection(filter: RunFilter | undefined): RunSelection {
  const idOf = (prefix: "ses" | "sch" | "run", id: string | undefined): string | undefined =>
    id === undefined || id === "" ? undefined : toUuid(prefix, id);
  const msOf = (time: RunFilter["createdAfter"]): number | undefined =>
    time === undefined ? undefined : timestampMs(time);
  return {
    states: (filter?.states ?? []).map((state) => state as number as RunState),
    name: filter?.name === "" ? undefined : filter?.name,
    labels: { ...filter?.labels },
    sessionId: idOf("ses", filter?.sessionId),
    scheduleId: idOf("sch", filter?.scheduleId),
    parentRunId: idOf("run", filter?.parentRunId),
    runIds: (filter?.runIds ?? []).map((runId) => toUuid("run", runId)),
    createdFromMs: msOf(filter?.createdAfter),
    createdBeforeMs: msOf(filter?.createdBefore),
  };
}

/** A filter in one text, the same for equal filters, so that a page's token belongs to its list. */
export function filterText(filter: RunFilter | undefined): string {
  if (filter === undefined) return "";
  const labels = Object.fromEntries(Object.entries(filter.labels).sort(([a], [b]) => (a < b ? -1 : 1)));
  return Buffer.from(toBinary(RunFilterSchema, { ...filter, labels })).toString("base64");
}
