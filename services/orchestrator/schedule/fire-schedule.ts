/**
 * Deals with one time of a schedule. Invariants:
 *
 * 1. That a run of a time is going to be started is stored before it is asked
 *    for, and how it went after. Between the two, whoever comes next finds the
 *    run by its schedule, or asks again with the same key: one run a time.
 * 2. For whom it starts is asked for again before each start.
 * 3. What may go better later leaves the time due, and throws; all else is
 *    noted in the schedule, which goes on with its next time.
 */
import { create } from "@bufbuild/protobuf";
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { type RunError, RunErrorSchema } from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import { RunService, type StartRunRequest } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { failureOf, reasonNumber } from "../../runtime/errors/failure.ts";
import type { PrincipalCheck } from "../../runtime/identity/principal-check.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import { assertMayCall } from "../../runtime/interceptor/authorization.ts";
import { overlapOf, timeToStart } from "../domain/schedule.ts";
import { nextTime } from "../domain/schedule-times.ts";
import type { ScheduleStore, StoredSchedule } from "../store/schedule-store.ts";
import { ruleOf } from "./schedule-rule.ts";

/** A run that a schedule starts. */
export interface ScheduledStart {
  readonly principal: Principal;
  /** `sch_…`. */
  readonly scheduleId: string;
  readonly request: StartRunRequest;
  /** The same for each try of a time. */
  readonly idempotencyKey: string;
}

/** Starts and cancels the runs of schedules. */
export interface ScheduledRuns {
  /** Starts a run, or finds the one that was started with the key; its UUID. */
  start(start: ScheduledStart, signal: AbortSignal): Promise<string>;
  /** Cancels a run; one that ended meanwhile is fine. */
  cancel(runUuid: string, principal: Principal, reason: string, signal: AbortSignal): Promise<void>;
}

export interface FireDeps {
  readonly schedules: ScheduleStore;
  readonly runs: ScheduledRuns;
  readonly principals: PrincipalCheck;
  /** The database's clock, in milliseconds since the epoch. */
  readonly now: () => number;
}

/** What is left of a schedule when it was dealt with. */
export interface Fired {
  /** Whether a time that has come is left: call again. */
  readonly again: boolean;
  /** The runs of whose end a time waits. */
  readonly waitsFor: readonly string[];
}

const nothing: Fired = { again: false, waitsFor: [] };
/** How many open runs of a schedule are looked at, and cancelled at once. */
const maxOpenRuns = 100;

/**
 * Deals with the next time of a schedule that has come, if one has.
 *
 * @throws AppError UNAVAILABLE and others that are worth another try
 */
export async function fireSchedule(deps: FireDeps, scheduleId: string, signal: AbortSignal): Promise<Fired> {
  const { schedules } = deps;
  const schedule = await schedules.load(scheduleId);
  if (schedule === undefined) return nothing;
  if (schedule.starting !== undefined) return await start(deps, schedule, schedule.starting.dueMs, signal);
  const { queuedDueMs, nextDueMs } = schedule;
  if (queuedDueMs !== undefined) {
    const open = await schedules.openRuns(scheduleId, maxOpenRuns);
    if (open.length === 0) return await begin(deps, schedule, queuedDueMs, signal);
    const later = await fireNext(deps, schedule, open, signal);
    return { ...later, waitsFor: open };
  }
  if (nextDueMs === undefined || nextDueMs > deps.now()) return nothing;
  return await fireNext(deps, schedule, await schedules.openRuns(scheduleId, maxOpenRuns), signal);
}

async function fireNext(
  deps: FireDeps,
  schedule: StoredSchedule,
  open: readonly string[],
  signal: AbortSignal,
): Promise<Fired> {
  const { scheduleId, nextDueMs, queuedDueMs, definition } = schedule;
  const nowMs = deps.now();
  if (nextDueMs === undefined || nextDueMs > nowMs) return nothing;
  const { times, overlap, catchUp } = ruleOf(definition);
  const dueMs = timeToStart(times, catchUp, nextDueMs, nowMs);
  if (dueMs === undefined) {
    return await finish(deps, schedule, { next: { from: nextDueMs, to: nextTime(times, nowMs) } });
  }
  switch (overlapOf(overlap, open.length, queuedDueMs !== undefined)) {
    case "start":
      return await begin(deps, schedule, dueMs, signal);
    case "cancel-and-start":
      for (const runUuid of open) {
        await deps.runs.cancel(runUuid, schedule.principal, `its schedule ${definition.name} is due again`, signal);
      }
      return await begin(deps, schedule, dueMs, signal);
    case "queue": {
      const { again } = await finish(deps, schedule, { next: nextOf(schedule, dueMs), queuedDueMs: dueMs });
      return { again, waitsFor: open };
    }
    case "skip": {
      const message = `a run was due at ${new Date(dueMs).toISOString()}, and ${fromUuid("run", open[0] ?? scheduleId)} is open`;
      return await finish(deps, schedule, {
        next: nextOf(schedule, dueMs),
        skipped: 1,
        error: runError("RUN_OPEN", message),
      });
    }
  }
}

/** 1: notes the time, then starts its run. */
async function begin(deps: FireDeps, schedule: StoredSchedule, dueMs: number, signal: AbortSignal): Promise<Fired> {
  if (!(await deps.schedules.begin(schedule.scheduleId, dueMs))) return { again: true, waitsFor: [] };
  return await start(deps, schedule, dueMs, signal);
}

async function start(deps: FireDeps, schedule: StoredSchedule, dueMs: number, signal: AbortSignal): Promise<Fired> {
  const { definition, queuedDueMs } = schedule;
  const scheduleId = fromUuid("sch", schedule.scheduleId);
  const settled = {
    next: dueMs === queuedDueMs ? undefined : nextOf(schedule, dueMs),
    queuedDueMs: dueMs === queuedDueMs ? undefined : queuedDueMs,
  };
  try {
    const since = schedule.starting?.since;
    const found = since === undefined ? undefined : await deps.schedules.findStarted(schedule, since);
    const runUuid =
      found === undefined
        ? await deps.runs.start(
            {
              principal: await assertMayStart(deps.principals, schedule.principal, signal),
              scheduleId,
              request: definition.run as StartRunRequest,
              idempotencyKey: `schedule:${scheduleId}:${new Date(dueMs).toISOString()}`,
            },
            signal,
          )
        : found;
    return await finish(deps, schedule, { ...settled, started: { dueMs, runUuid } });
  } catch (error) {
    if (!(error instanceof AppError) || isWorthAnotherTry(error)) throw error; // 3
    const refused = error.reason === "PRINCIPAL_REVOKED" || failureOf(error.reason).code === permissionDenied;
    return await finish(deps, schedule, {
      ...settled,
      skipped: refused ? 1 : 0,
      error: runError(error.reason, error.message),
    });
  }
}

/** 2: throws PRINCIPAL_REVOKED, ROLE_TOO_LOW or SCOPE_MISSING if it may start no runs any more. */
async function assertMayStart(principals: PrincipalCheck, asked: Principal, signal: AbortSignal): Promise<Principal> {
  const principal = await principals.assertMayAct(asked, signal);
  assertMayCall(RunService.method.startRun, principal);
  return principal;
}

async function finish(
  { schedules, now }: FireDeps,
  { scheduleId, queuedDueMs }: StoredSchedule,
  outcome: {
    readonly next: { readonly from: number; readonly to: number | undefined } | undefined;
    readonly queuedDueMs?: number | undefined;
    readonly started?: { readonly dueMs: number; readonly runUuid: string };
    readonly skipped?: number;
    readonly error?: RunError;
  },
): Promise<Fired> {
  await schedules.finish(scheduleId, {
    next: outcome.next,
    queuedDueMs: "queuedDueMs" in outcome ? outcome.queuedDueMs : queuedDueMs,
    started: outcome.started,
    skipped: outcome.skipped ?? 0,
    error: outcome.error,
  });
  const to = outcome.next?.to;
  return { again: to !== undefined && to <= now(), waitsFor: [] };
}

/** How the schedule moves on past a time. */
function nextOf({ nextDueMs, definition }: StoredSchedule, dueMs: number) {
  return nextDueMs === undefined ? undefined : { from: nextDueMs, to: nextTime(ruleOf(definition).times, dueMs) };
}

const permissionDenied = 7;

function isWorthAnotherTry({ reason }: AppError): boolean {
  return reason === "SHUTTING_DOWN" || reason === "IDEMPOTENCY_IN_PROGRESS" || failureOf(reason).retryable;
}

function runError(reason: AppError["reason"], message: string): RunError {
  return create(RunErrorSchema, { reason: reasonNumber(reason), message });
}
