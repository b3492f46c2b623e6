import { durationMs } from "@bufbuild/protobuf/wkt";
import {
  CatchUp,
  Overlap as ProtoOverlap,
  type ScheduleDefinition,
} from "@cadre/gen/cadre/orchestrator/v1/schedule_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { CronError, parseCron } from "../domain/cron.ts";
import type { CatchUp as CatchUpRule, Overlap } from "../domain/schedule.ts";
import { nextTime, type ScheduleTimes } from "../domain/schedule-times.ts";
import { findZone } from "../domain/zone.ts";

/** When a schedule starts runs, and what it does with times that cannot be kept. */
export interface ScheduleRule {
  readonly times: ScheduleTimes;
  readonly overlap: Overlap;
  readonly catchUp: CatchUpRule;
}

const overlaps: Readonly<Record<ProtoOverlap, Overlap>> = {
  [ProtoOverlap.UNSPECIFIED]: "skip",
  [ProtoOverlap.SKIP]: "skip",
  [ProtoOverlap.QUEUE]: "queue",
  [ProtoOverlap.ALLOW]: "allow",
  [ProtoOverlap.CANCEL]: "cancel",
};

const defaultWindowMs = 3_600_000;

/**
 * Reads when a schedule starts runs.
 *
 * @throws AppError INVALID_ARGUMENT naming the field: no cron expression, no time zone, or one that never comes
 */
export function ruleOf(definition: ScheduleDefinition): ScheduleRule {
  const zone = findZone(definition.timeZone === "" ? "UTC" : definition.timeZone);
  if (zone === undefined) throw invalid("time_zone", "is no IANA time zone, as `Europe/Berlin` is");
  const times = { cron: parse(definition.cron), zone };
  if (nextTime(times, 0) === undefined) throw invalid("cron", "never comes");
  return { times, overlap: overlaps[definition.overlap], catchUp: catchUpOf(definition) };
}

function catchUpOf({ catchUp, catchUpWindow }: ScheduleDefinition): CatchUpRule {
  switch (catchUp) {
    case CatchUp.NONE:
      return { type: "none" };
    case CatchUp.ALL:
      return { type: "all", windowMs: catchUpWindow === undefined ? defaultWindowMs : durationMs(catchUpWindow) };
    case CatchUp.LAST:
    case CatchUp.UNSPECIFIED:
      return { type: "last" };
  }
}

function parse(source: string): ScheduleTimes["cron"] {
  try {
    return parseCron(source);
  } catch (error) {
    if (error instanceof CronError) throw invalid("cron", error.message);
    throw error;
  }
}

function invalid(name: string, message: string): AppError {
  const field = `definition.${name}`;
  return new AppError("INVALID_ARGUMENT", `${field}: ${message}`, { violations: [{ field, message }] });
}
