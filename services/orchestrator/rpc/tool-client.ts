import { fromBinary } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { ExecutionProgress, PinnedToolSchema, type ToolExecutionService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import type { CallOptions, Client } from "@connectrpc/connect";
import { AppError } from "../../runtime/errors/app-error.ts";
import { reasonName, toAppError } from "../../runtime/errors/failure.ts";
import { boundary } from "../../runtime/failpoint/failpoint.ts";
import type { Logger } from "../../runtime/log/log.ts";
import { onBehalfOf } from "../../runtime/rpc/request-context.ts";
import { backOffMs } from "../../runtime/wait/back-off.ts";
import { isPassing, pause, waits } from "../app/backoff.ts";
import type { ToolCaller, ToolRunner } from "../app/ports.ts";
import type { PinnedTool, Receipt, ToolOutcome } from "../domain/entry.ts";
import { fromProtoTool, fromProtoValue, toStruct } from "../store/proto-values.ts";

/** How long a cancelled call has to end, in milliseconds. */
const graceMs = 1_000;
/** How long the answer to a cancellation is waited for, in milliseconds: the grace, and the way there and back. */
const cancelTimeoutMs = 2_000;
/** How long one answer is waited for, in milliseconds; the call itself goes on. */
const waitMs = 240_000;
/** What the tools service lets a call take at most, in milliseconds. */
const maxCallMs = 900_000;

/** Runs tools by ToolExecutionService. */
export function createToolRunner(client: Client<typeof ToolExecutionService>, log: Logger): ToolRunner {
  return {
    async resolve(caller, names, signal) {
      const { tools, missing } = await answered(() =>
        boundary("tool.resolve", () => client.resolveTools({ names: [...names] }, optionsFor(caller, signal))),
      );
      if (missing.length > 0) log.info({ runId: caller.runId, missing }, "an agent names tools that do not exist");
      return tools.map(fromProtoTool);
    },

    execute: (caller, call, signal) =>
      untilAnswered(caller, call.stepId, signal, log, () => executeOnce(client, caller, call, signal)),

    call: (caller, call, signal) =>
      untilAnswered(caller, call.stepId, signal, log, async () => {
        const { toolId, digest } = referenceOf(call.tool);
        const { outcome } = await client.executeToolUnary(
          {
            call: {
              toolId,
              digest,
              arguments: toStruct(call.arguments),
              idempotencyKey: call.stepId,
              epoch: caller.epoch,
              runId: caller.runId,
              stepId: call.stepId,
              attempt: call.attempt,
              sessionId: caller.sessionId,
              afterFailures: call.afterFailures,
              ...(call.timeoutMs === undefined ? {} : { timeout: durationFromMs(Math.min(call.timeoutMs, maxCallMs)) }),
              ...(call.heartbeatTimeoutMs === undefined
                ? {}
                : { heartbeatTimeout: durationFromMs(Math.min(call.heartbeatTimeoutMs, maxCallMs)) }),
            },
          },
          { ...optionsFor(caller, signal), timeoutMs: waitMs },
        );
        switch (outcome.case) {
          case "result":
            return { type: "value", value: fromProtoValue(outcome.value) };
          case "error":
            return {
              type: "error",
              error: { reason: reasonName(outcome.value.reason), message: outcome.value.message },
            };
          default:
            return undefined;
        }
      }),

    async cancel(caller, stepId): Promise<Receipt> {
      try {
        const { progress } = await boundary("tool.cancel", () =>
          client.cancelExecution(
            { idempotencyKey: stepId, epoch: caller.epoch, grace: durationFromMs(graceMs) },
            { ...optionsFor(caller, AbortSignal.timeout(cancelTimeoutMs)), timeoutMs: cancelTimeoutMs },
          ),
        );
        return receipts.get(progress) ?? "may-still-run";
      } catch (error) {
        log.warn({ err: error, runId: caller.runId, stepId }, "a cancellation was not confirmed");
        return "may-still-run";
      }
    },
  };
}

const receipts: ReadonlyMap<ExecutionProgress, Receipt> = new Map([
  [ExecutionProgress.NOT_STARTED, "not-started"],
  [ExecutionProgress.PARTIAL, "partial"],
  [ExecutionProgress.DONE, "done"],
]);

/** Asks until there is an outcome: the key makes it safe, as the call that runs is joined. */
async function untilAnswered(
  caller: ToolCaller,
  stepId: string,
  signal: AbortSignal,
  log: Logger,
  ask: () => Promise<ToolOutcome | undefined>,
): Promise<ToolOutcome> {
  for (let failures = 0; ; ) {
    try {
      const outcome = await boundary("tool.execute", ask);
      if (outcome !== undefined) return outcome;
      failures += 1;
      log.warn({ runId: caller.runId, stepId }, "a tool's answer had no outcome");
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const error = toAppError(thrown);
      if (error.reason === "EPOCH_STALE") throw error;
      if (!isPassing(error) && error.reason !== "CANCELLED") {
        if (error.reason === "INTERNAL") log.error({ err: error, stepId }, "a tool's call failed");
        return { type: "error", error: { reason: error.reason, message: error.message } };
      }
      // A call that takes longer than one answer is waited for again, at once.
      if (error.reason === "DEADLINE_EXCEEDED") failures = 0;
      failures += 1;
      log.info({ err: error, runId: caller.runId, stepId }, "a tool's call is asked for again");
    }
    await pause(backOffMs(failures, waits), signal);
  }
}

const references = new WeakMap<PinnedTool, { readonly toolId: string; readonly digest: string }>();

/** Which tool is meant, as the contract has it: read once for all the calls of a run. */
function referenceOf(tool: PinnedTool): { readonly toolId: string; readonly digest: string } {
  const known = references.get(tool);
  if (known !== undefined) return known;
  const { toolId, digest } = fromBinary(PinnedToolSchema, tool.encoded);
  references.set(tool, { toolId, digest });
  return { toolId, digest };
}

async function executeOnce(
  client: Client<typeof ToolExecutionService>,
  caller: ToolCaller,
  call: Parameters<ToolRunner["execute"]>[1],
  signal: AbortSignal,
): Promise<ToolOutcome | undefined> {
  const pinned = fromBinary(PinnedToolSchema, call.tool.encoded);
  const stream = client.executeTool(
    {
      toolId: pinned.toolId,
      digest: pinned.digest,
      arguments: toStruct(call.arguments),
      idempotencyKey: call.stepId,
      epoch: caller.epoch,
      runId: caller.runId,
      stepId: call.stepId,
      attempt: call.attempt,
      sessionId: caller.sessionId,
    },
    optionsFor(caller, signal),
  );
  let outcome: ToolOutcome | undefined;
  // Read to its end: leaving a client's stream early does not end it.
  for await (const { part } of stream) {
    switch (part.case) {
      case "output":
        call.onOutput(part.value);
        break;
      case "result":
        outcome = { type: "value", value: fromProtoValue(part.value) };
        break;
      case "error":
        outcome = { type: "error", error: { reason: reasonName(part.value.reason), message: part.value.message } };
    }
  }
  return outcome;
}

async function answered<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (thrown) {
    throw thrown instanceof AppError ? thrown : toAppError(thrown);
  }
}

/** A run calls for its principal, long after the request that sent it was answered. */
function optionsFor(caller: ToolCaller, signal: AbortSignal): CallOptions {
  return onBehalfOf(
    {
      requestId: caller.requestId,
      traceparent: caller.traceparent,
      source: "orchestrator",
      deadline: Number.POSITIVE_INFINITY,
      signal,
      principal: caller.principal,
      callingService: undefined,
      idempotencyKey: "",
    },
    signal,
  );
}
