import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { StartRunRequest } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import {
  type Schedule,
  ScheduleDefinitionSchema,
  ScheduleSchema,
  ScheduleService,
} from "@cadre/gen/cadre/orchestrator/v1/schedule_pb";
import type { ServiceImpl } from "@connectrpc/connect";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { Limits } from "../../runtime/identity/limits.ts";
import { fromUuid, newId, toUuid } from "../../runtime/ids/id.ts";
import type { PageTokens } from "../../runtime/page/page-token.ts";
import { requestContext, requirePrincipal } from "../../runtime/rpc/request-context.ts";
import { nextTime, nextTimes } from "../domain/schedule-times.ts";
import { ruleOf } from "../schedule/schedule-rule.ts";
import type { ScheduleStore, StoredSchedule } from "../store/schedule-store.ts";
import { pageSize } from "./page-size.ts";

export interface ScheduleHandlerDeps {
  readonly schedules: ScheduleStore;
  readonly limits: Limits;
  readonly pages: PageTokens;
  /** Refuses what could not be started as it is now, without starting it. */
  readonly assertStartable: (orgUuid: string, request: StartRunRequest, signal: AbortSignal) => Promise<void>;
  /** The database's clock, in milliseconds since the epoch. */
  readonly now: () => number;
}

const listMethod = `${ScheduleService.typeName}/ListSchedules`;
/** How many of the next times are shown. */
const timesShown = 5;

/** The handlers of ScheduleService. */
export function scheduleHandlers(deps: ScheduleHandlerDeps): ServiceImpl<typeof ScheduleService> {
  const { schedules, pages, now } = deps;
  return {
    async putSchedule(request, context) {
      const principal = requirePrincipal(context);
      const org = toUuid("org", principal.orgId);
      const definition = create(ScheduleDefinitionSchema, request.definition);
      if (definition.run === undefined) throw new AppError("INVALID_ARGUMENT", "definition.run: is missing");
      const { times } = ruleOf(definition);
      await deps.assertStartable(org, definition.run, requestContext(context.values).signal);
      const schedule = await schedules.put(org, {
        scheduleId: toUuid("sch", newId("sch")),
        definition,
        principal,
        nextDueMs: definition.paused ? undefined : nextTime(times, now()),
        maxSchedules: await deps.limits.get(principal.orgId, "schedules"),
      });
      return { schedule: toSchedule(schedule, now()) };
    },

    async getSchedule({ scheduleId }, context) {
      const org = toUuid("org", requirePrincipal(context).orgId);
      const schedule = await schedules.find(org, toUuid("sch", scheduleId));
      if (schedule === undefined) throw notFound();
      return { schedule: toSchedule(schedule, now()) };
    },

    async listSchedules(request, context) {
      const { orgId } = requirePrincipal(context);
      const scope = { orgId, method: listMethod, filter: "" };
      const size = pageSize(request.pageSize);
      const after = pages.open(scope, request.pageToken) ?? "";
      const rows = await schedules.list(toUuid("org", orgId), after, size + 1);
      const page = rows.slice(0, size);
      const last = page.at(-1)?.definition.name;
      return {
        schedules: page.map((schedule) => toSchedule(schedule, now())),
        nextPageToken: rows.length > size && last !== undefined ? pages.seal(scope, last) : "",
      };
    },

    async deleteSchedule({ scheduleId }, context) {
      const org = toUuid("org", requirePrincipal(context).orgId);
      if (!(await schedules.delete(org, toUuid("sch", scheduleId)))) throw notFound();
      return {};
    },
  };
}

/** A schedule as callers see it. */
function toSchedule(stored: StoredSchedule, nowMs: number): Schedule {
  const { definition, lastDueMs, lastRunId, lastError } = stored;
  // What is due and not dealt with yet comes first.
  const fromMs = Math.min(nowMs, (stored.nextDueMs ?? nowMs + 1) - 1);
  const next = stored.nextDueMs === undefined ? [] : nextTimes(ruleOf(definition).times, fromMs, timesShown);
  return create(ScheduleSchema, {
    scheduleId: fromUuid("sch", stored.scheduleId),
    definition,
    nextTimes: next.map(timestampFromMs),
    ...(lastDueMs === undefined ? {} : { lastTime: timestampFromMs(lastDueMs) }),
    lastRunId: lastRunId === undefined ? "" : fromUuid("run", lastRunId),
    skipped: stored.skipped,
    ...(lastError === undefined ? {} : { lastError }),
    createdAt: timestampFromMs(stored.createdAtMs),
    updatedAt: timestampFromMs(stored.updatedAtMs),
  });
}

function notFound(): AppError {
  return new AppError("SCHEDULE_NOT_FOUND", "no such schedule");
}
