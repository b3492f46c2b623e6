import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { CatchUp, Overlap, type Schedule, ScheduleService } from "@cadre/gen/cadre/orchestrator/v1/schedule_pb";
import { type Caller, type CallOptions, required } from "../caller.ts";
import { createListing, type Listing, type PageOptions } from "../page.ts";
import { type RunDefinition, toStartRequest } from "./run-definition.ts";

/** When to start what. */
export interface ScheduleOptions {
  /** Unique in the org: lower-case letters, digits and dashes, at most 63. */
  readonly name: string;
  /** Cron expression of five fields, for example `0 6 * * mon-fri`. */
  readonly cron: string;
  /** IANA time zone, for example `Europe/Berlin`; UTC unless said. */
  readonly timeZone?: string;
  /** What to run. */
  readonly run: RunDefinition<unknown, unknown>;
  /**
   * What to do when a run is due and an earlier one is open: `skip` it, which
   * is the default; `queue` it; `allow` both; or `cancel` the earlier one.
   */
  readonly overlap?: "skip" | "queue" | "allow" | "cancel";
  /**
   * What to do with times that passed while no server ran: start `none`, the
   * `last` one, which is the default, or `all` within `catchUpWindowMs`.
   */
  readonly catchUp?: "none" | "last" | "all";
  /** How far back `all` goes, in milliseconds; an hour unless said. */
  readonly catchUpWindowMs?: number;
  /** Start nothing for now. */
  readonly paused?: boolean;
}

/** Runs that start by the clock. */
export interface Schedules {
  /**
   * Makes a schedule, or changes the one of that name. The same definition
   * again changes nothing. Runs start for the principal that asks.
   *
   * @throws CadreError `INVALID_ARGUMENT` with `violations`, or what `Runs.start` would throw
   */
  put(schedule: ScheduleOptions, options?: CallOptions): Promise<Schedule>;
  /** Returns a schedule. @throws CadreError `SCHEDULE_NOT_FOUND` */
  get(scheduleId: string, options?: CallOptions): Promise<Schedule>;
  /** Lists the org's schedules, by name. */
  list(options?: PageOptions): Listing<Schedule>;
  /** Deletes a schedule; runs that it started go on. @throws CadreError `SCHEDULE_NOT_FOUND` */
  delete(scheduleId: string, options?: CallOptions): Promise<void>;
}

const overlapNumber = {
  skip: Overlap.SKIP,
  queue: Overlap.QUEUE,
  allow: Overlap.ALLOW,
  cancel: Overlap.CANCEL,
} as const;
const catchUpNumber = { none: CatchUp.NONE, last: CatchUp.LAST, all: CatchUp.ALL } as const;

/** Creates the schedules of a client. */
export function createSchedules(caller: Caller): Schedules {
  const { method } = ScheduleService;
  return {
    async put(schedule, options) {
      const { name, cron, timeZone = "", run, overlap = "skip", catchUp = "last", paused = false } = schedule;
      const definition = {
        name,
        cron,
        timeZone,
        run: toStartRequest(run),
        overlap: overlapNumber[overlap],
        catchUp: catchUpNumber[catchUp],
        paused,
        ...(schedule.catchUpWindowMs === undefined ? {} : { catchUpWindow: durationFromMs(schedule.catchUpWindowMs) }),
      };
      const response = await caller.unary(method.putSchedule, { definition }, options);
      return required(response.schedule, "the schedule");
    },
    async get(scheduleId, options) {
      const { schedule } = await caller.unary(method.getSchedule, { scheduleId }, options);
      return required(schedule, "the schedule");
    },
    list(options = {}) {
      return createListing(options, async (pageToken) => {
        const request = { pageSize: options.pageSize ?? 0, pageToken };
        const response = await caller.unary(method.listSchedules, request, { signal: options.signal });
        return { items: response.schedules, nextPageToken: response.nextPageToken };
      });
    },
    async delete(scheduleId, options) {
      await caller.unary(method.deleteSchedule, { scheduleId }, options);
    },
  };
}
