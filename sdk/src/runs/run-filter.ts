import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { RunFilterSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { type RunStateName, runStateNumber } from "./run-state.ts";

/** Which runs are meant. All that is said must hold. */
export interface RunFilterOptions {
  /** One of these states. */
  readonly states?: readonly RunStateName[];
  /** The name of the graph or agent. */
  readonly name?: string;
  /** These labels, and perhaps others. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Turns of this session. */
  readonly sessionId?: string;
  /** Started by this schedule. */
  readonly scheduleId?: string;
  /** Children of this run; only runs without a parent unless said. */
  readonly parentRunId?: string;
  /** These runs; at most 200. */
  readonly runIds?: readonly string[];
  /** Stored at or after this time. */
  readonly createdAfter?: Date;
  /** Stored before this time. */
  readonly createdBefore?: Date;
}

/** The filter's message. */
export function toRunFilter(options: RunFilterOptions): MessageInitShape<typeof RunFilterSchema> {
  const { states = [], labels = {}, runIds = [], createdAfter, createdBefore } = options;
  return {
    states: states.map(runStateNumber),
    name: options.name ?? "",
    labels: { ...labels },
    sessionId: options.sessionId ?? "",
    scheduleId: options.scheduleId ?? "",
    parentRunId: options.parentRunId ?? "",
    runIds: [...runIds],
    ...(createdAfter === undefined ? {} : { createdAfter: timestampFromDate(createdAfter) }),
    ...(createdBefore === undefined ? {} : { createdBefore: timestampFromDate(createdBefore) }),
  };
}
