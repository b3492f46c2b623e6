import { create } from "@bufbuild/protobuf";
import { CommandSchema } from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { fromUuid, newId, toUuid } from "../../runtime/ids/id.ts";
import type { Engine } from "../app/engine.ts";
import { assertStartable, type StartRunDeps, startRun } from "../app/graph/start-run.ts";
import type { ScheduleHandlerDeps } from "../rpc/schedule-handlers.ts";
import type { RunReadStore } from "../store/run-read-store.ts";
import type { ScheduledRuns } from "./fire-schedule.ts";

export interface ScheduledRunsDeps extends StartRunDeps {
  readonly engine: StartRunDeps["engine"] & Pick<Engine, "dispatch">;
  readonly runs: Pick<RunReadStore, "find">;
}

/** Starts and cancels runs of schedules as a caller's request would. */
export function createScheduledRuns(
  deps: ScheduledRunsDeps,
): ScheduledRuns & Pick<ScheduleHandlerDeps, "assertStartable"> {
  return {
    assertStartable: (orgUuid, request) => assertStartable(deps, request, orgUuid),

    async start({ principal, scheduleId, request, idempotencyKey }, signal) {
      const asking = { principal, requestId: newId("req"), traceparent: "", idempotencyKey, scheduleId };
      const { outcome } = await startRun(deps, request, asking, signal);
      if (outcome.case !== "startRun") throw new TypeError("a reply to another command");
      return toUuid("run", outcome.value.run?.runId ?? "");
    },

    async cancel(runUuid, principal, reason, signal) {
      const row = await deps.runs.find(toUuid("org", principal.orgId), runUuid);
      if (row === undefined) return;
      const runId = fromUuid("run", runUuid);
      const command = create(CommandSchema, {
        requestId: newId("req"),
        principal,
        request: { case: "cancelRun", value: { runId, reason } },
      });
      try {
        await deps.engine.dispatch(fromUuid("run", row.rootId), command, signal);
      } catch (error) {
        const gone = error instanceof AppError && (error.reason === "RUN_ENDED" || error.reason === "RUN_NOT_FOUND");
        if (!gone) throw error;
      }
    },
  };
}
