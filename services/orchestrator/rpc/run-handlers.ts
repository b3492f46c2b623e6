import { create } from "@bufbuild/protobuf";
import { durationMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { AuditDecision, AuditEventSchema } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { type CommandReply, CommandSchema } from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { RunErrorSchema } from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import {
  BatchRunsResponseSchema,
  BatchAction as ProtoBatchAction,
  type Run,
  RunService,
} from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { AuditSink } from "../../runtime/audit/audit-sink.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import { reasonNumber } from "../../runtime/errors/failure.ts";
import { fromUuid, newId, toUuid } from "../../runtime/ids/id.ts";
import type { PageTokens } from "../../runtime/page/page-token.ts";
import { type RequestContext, requestContext, requirePrincipal } from "../../runtime/rpc/request-context.ts";
import { traceIdOf } from "../../runtime/telemetry/traceparent.ts";
import { type BatchAction, batchRuns } from "../app/batch-runs.ts";
import type { Engine } from "../app/engine.ts";
import { followRun } from "../app/follow-run.ts";
import type { EndedRun } from "../app/graph/run-ends.ts";
import { assertValue, type StartRunDeps, startRun } from "../app/graph/start-run.ts";
import { deleteRun, type PruneDeps } from "../ledger/prune-run.ts";
import { hasEnded, runState } from "../store/append-store.ts";
import { fromProtoValue } from "../store/proto-values.ts";
import type { RunRow } from "../store/run-read-store.ts";
import type { LedgerHandlers } from "./ledger-handlers.ts";
import { pageSize } from "./page-size.ts";
import { type ReadRunDeps, readRun, runNotFound } from "./read-run.ts";
import { filterText, toSelection } from "./run-filter.ts";
import { isShowable, toBriefRun, toEndedRun, toListedRun } from "./run-view.ts";
import { watchRun } from "./watch-run.ts";

export interface RunHandlerDeps extends StartRunDeps, ReadRunDeps {
  readonly database: PruneDeps["engine"];
  readonly receipts: PruneDeps["receipts"];
  readonly engine: Pick<Engine, "startRun" | "dispatch" | "feed" | "stopping" | "whenEnded">;
  readonly payloads: StartRunDeps["payloads"] & ReadRunDeps["payloads"];
  readonly pages: PageTokens;
  /** Where each run of a batch is written. */
  readonly audit: AuditSink;
  /** Default 15 seconds. */
  readonly keepaliveMs?: number;
}

/** The methods of RunService that change runs and read them; those about their ledgers are elsewhere. */
export type RunHandlers = Omit<ServiceImpl<typeof RunService>, keyof LedgerHandlers>;

/** Past what any run reaches. */
const maxSeq = 2 ** 31 - 1;
const listMethod = `${RunService.typeName}/ListRuns`;
/** What a call that waits leaves of its deadline for its answer, in milliseconds. */
const answerReserveMs = 500;

const batchActions: ReadonlyMap<ProtoBatchAction, BatchAction> = new Map([
  [ProtoBatchAction.CANCEL, "cancel"],
  [ProtoBatchAction.RESUME, "resume"],
  [ProtoBatchAction.DELETE, "delete"],
]);

/** The handlers of RunService. */
export function runHandlers(deps: RunHandlerDeps): RunHandlers {
  const { runs, engine, pages } = deps;
  const follow = { ...deps, feed: engine.feed, stopping: engine.stopping, keepaliveMs: deps.keepaliveMs ?? 15_000 };

  /**
   * Waits for a run's end, for as long as is asked for and the deadline lets it.
   * Says how it ended if that is known without a look into the store.
   */
  async function waitForEnd(context: HandlerContext, runUuid: string, waitMs: number): Promise<EndedRun | undefined> {
    const { deadline } = requestContext(context.values);
    const leftMs = Math.min(waitMs, deadline - Date.now() - answerReserveMs);
    if (leftMs <= 0) return undefined;
    const ending = AbortSignal.any([context.signal, AbortSignal.timeout(Math.ceil(leftMs))]);
    const told = engine.whenEnded(runUuid, ending);
    if (told !== undefined) {
      const ended = await told;
      context.signal.throwIfAborted();
      return ended;
    }
    const position = { orgId: orgOf(context), runId: runUuid, afterSeq: maxSeq };
    for await (const page of followRun(follow, position, ending)) {
      if (page !== undefined && hasEnded(page.run.state)) return undefined;
    }
    context.signal.throwIfAborted();
    return undefined;
  }

  async function rowOf(context: HandlerContext, runId: string): Promise<RunRow> {
    const row = await runs.find(orgOf(context), toUuid("run", runId));
    if (row === undefined) throw runNotFound();
    return row;
  }

  /** A run as it is behind a command. */
  async function answered(context: HandlerContext, runId: string): Promise<{ readonly run: Run }> {
    return { run: toListedRun(await rowOf(context, runId)) };
  }

  async function cancel(context: HandlerContext, row: RunRow, reason: string, compensate: boolean): Promise<void> {
    // Who asks again since the answer got lost is answered, too.
    if (row.state === runState.cancelled) return;
    if (hasEnded(row.state)) throw new AppError("RUN_ENDED", "the run has ended");
    const runId = fromUuid("run", row.runId);
    if (row.sessionId !== undefined) {
      const sessionId = fromUuid("ses", row.sessionId);
      await dispatch(deps, context, row, { case: "cancelTurn", value: { sessionId, turnId: runId } });
      return;
    }
    try {
      await dispatch(deps, context, row, { case: "cancelRun", value: { runId, reason, compensate } });
    } catch (error) {
      if (!(error instanceof AppError) || error.reason !== "RUN_ENDED") throw error;
      // It ended since its row was read.
      if ((await rowOf(context, runId)).state !== runState.cancelled) throw error;
    }
  }

  async function resume(context: HandlerContext, row: RunRow): Promise<void> {
    assertOwnRun(row);
    await dispatch(deps, context, row, { case: "resumeRun", value: { runId: fromUuid("run", row.runId) } });
  }

  async function remove(context: HandlerContext, row: RunRow): Promise<void> {
    assertOwnRun(row);
    if (!hasEnded(row.state)) throw new AppError("RUN_OPEN", "the run has not ended");
    await deleteRun({ engine: deps.database, receipts: deps.receipts }, row.runId, context.signal);
  }

  return {
    async startRun(request, context) {
      const scope = requestContext(context.values);
      const asking = { ...scope, principal: requirePrincipal(context) };
      const { outcome } = await startRun(deps, request, asking, context.signal);
      if (outcome.case !== "startRun" || outcome.value.run === undefined) throw otherReply();
      const { run } = outcome.value;
      const waitMs = request.wait === undefined ? 0 : durationMs(request.wait);
      if (waitMs <= 0) return { run };
      const runUuid = toUuid("run", run.runId);
      const ended = await waitForEnd(context, runUuid, waitMs);
      if (ended !== undefined && isShowable(ended)) return { run: toEndedRun(run, ended) };
      return { run: toBriefRun(await readRun(deps, orgOf(context), runUuid)) };
    },

    async getRun({ runId, wait }, context) {
      const uuid = toUuid("run", runId);
      const waitMs = wait === undefined ? 0 : durationMs(wait);
      if (waitMs > 0) await waitForEnd(context, uuid, waitMs);
      return { run: await readRun(deps, orgOf(context), uuid) };
    },

    async listRuns(request, context) {
      const { orgId } = requirePrincipal(context);
      const scope = { orgId, method: listMethod, filter: filterText(request.filter) };
      const size = pageSize(request.pageSize);
      const before = pages.open(scope, request.pageToken);
      const rows = await runs.list(toUuid("org", orgId), toSelection(request.filter), before, size + 1);
      const page = rows.slice(0, size);
      const last = page.at(-1)?.runId;
      return {
        runs: page.map(toListedRun),
        nextPageToken: rows.length > size && last !== undefined ? pages.seal(scope, last) : "",
      };
    },

    async *watchRun({ runId, afterSeq }, context) {
      const position = {
        orgId: orgOf(context),
        runId: toUuid("run", runId),
        afterSeq: afterSeq > BigInt(maxSeq) ? maxSeq : Number(afterSeq),
      };
      for await (const event of watchRun(follow, position, context.signal)) yield event === undefined ? {} : { event };
    },

    async cancelRun({ runId, reason, compensate }, context) {
      await cancel(context, await rowOf(context, runId), reason, compensate);
      return await answered(context, runId);
    },

    async resumeRun({ runId }, context) {
      await resume(context, await rowOf(context, runId));
      return await answered(context, runId);
    },

    async signalRun(request, context) {
      const row = await rowOf(context, request.runId);
      assertOwnRun(row);
      if (request.payload !== undefined) assertValue("payload", fromProtoValue(request.payload));
      if (hasEnded(row.state)) throw new AppError("RUN_ENDED", "the run has ended");
      const { outcome } = await dispatch(deps, context, row, { case: "signalRun", value: request });
      if (outcome.case !== "signalRun") throw otherReply();
      return outcome.value;
    },

    async decideApproval(request, context) {
      const row = await rowOf(context, request.runId);
      assertOwnRun(row);
      const { outcome } = await dispatch(deps, context, row, { case: "decideApproval", value: request });
      if (outcome.case !== "decideApproval") throw otherReply();
      const run = await readRun(deps, row.orgId, row.runId);
      const step = run.steps.find(({ name }) => name === request.step) ?? outcome.value.step;
      return step === undefined ? {} : { step };
    },

    async deleteRun({ runId }, context) {
      await remove(context, await rowOf(context, runId));
      return {};
    },

    async *batchRuns({ action: asked, filter, dryRun, compensate }, context) {
      const action = batchActions.get(asked);
      if (action === undefined) throw new AppError("INVALID_ARGUMENT", "action: is unknown");
      const act = async (row: RunRow): Promise<void> => {
        await deps.audit.append(batchEvent(action, row, requestContext(context.values)));
        if (action === "cancel") await cancel(context, row, "", compensate);
        else if (action === "resume") await resume(context, row);
        else await remove(context, row);
      };
      const batch = { orgId: orgOf(context), action, selection: toSelection(filter), dryRun };
      for await (const progress of batchRuns({ runs, act, now: Date.now }, batch, context.signal)) {
        const { runId, error, done, failed, total } = progress;
        yield create(BatchRunsResponseSchema, {
          runId: runId === undefined ? "" : fromUuid("run", runId),
          done: BigInt(done),
          failed: BigInt(failed),
          total: BigInt(total),
          ...(error === undefined
            ? {}
            : { error: create(RunErrorSchema, { reason: reasonNumber(error.reason), message: error.message }) }),
        });
      }
    },
  };
}

/** Hands a request to the owner of its run. */
async function dispatch(
  deps: RunHandlerDeps,
  context: HandlerContext,
  row: RunRow,
  request: InstanceOfRequest,
): Promise<CommandReply> {
  const { requestId, traceparent, idempotencyKey, deadline, signal } = requestContext(context.values);
  const command = create(CommandSchema, {
    requestId,
    traceparent,
    principal: requirePrincipal(context),
    idempotencyKey,
    ...(Number.isFinite(deadline) ? { deadline: timestampFromMs(deadline) } : {}),
    request,
  });
  return await deps.engine.dispatch(fromUuid(row.sessionId === undefined ? "run" : "ses", row.rootId), command, signal);
}

type InstanceOfRequest = NonNullable<NonNullable<Parameters<typeof create<typeof CommandSchema>>[1]>["request"]>;

/** The batch itself is written by whoever let the request in; this is each run of it. */
function batchEvent(action: BatchAction, row: RunRow, scope: RequestContext) {
  return create(AuditEventSchema, {
    eventId: newId("evt"),
    at: timestampFromMs(Date.now()),
    type: auditType[action],
    decision: AuditDecision.ALLOWED,
    orgId: scope.principal?.orgId ?? "",
    actor: scope.principal?.subject ?? "",
    action: `${RunService.typeName}/${RunService.method.batchRuns.name}`,
    resource: `run/${fromUuid("run", row.runId)}`,
    source: scope.source.slice(0, 64),
    requestId: scope.requestId,
    traceId: traceIdOf(scope.traceparent),
    count: 1,
  });
}

const auditType = { cancel: "run.cancelled", resume: "run.resumed", delete: "run.deleted" } as const;

/** A turn is its session's business. */
function assertOwnRun(row: RunRow): void {
  if (row.sessionId === undefined) return;
  throw new AppError("RUN_OF_SESSION", "the run is a turn of a session", {
    metadata: { session_id: fromUuid("ses", row.sessionId) },
  });
}

/** The UUID of the caller's org. */
function orgOf(context: HandlerContext): string {
  return toUuid("org", requirePrincipal(context).orgId);
}

function otherReply(): TypeError {
  return new TypeError("a reply to another command");
}
