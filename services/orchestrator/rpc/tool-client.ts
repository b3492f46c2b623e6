import { fromBinary, toJson } from "@bufbuild/protobuf";
import { durationFromMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { ExecutionProgress, PinnedToolSchema, type ToolExecutionService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import type { CallOptions, Client } from "@connectrpc/connect";
import { AppError } from "../../runtime/errors/app-error.ts";
import { reasonName, toAppError } from "../../runtime/errors/failure.ts";
import { boundary } from "../../runtime/failpoint/failpoint.ts";
import type { Logger } from "../../runtime/log/log.ts";
import { onBehalfOf } from "../../runtime/rpc/request-context.ts";
import { backoffMs, isPassing, pause } from "../app/backoff.ts";
import type { CancelledCall, ToolCaller, ToolRunner } from "../app/ports.ts";
import type { ToolOutcome } from "../domain/entry.ts";
import type { Json } from "../domain/json.ts";
import { fromProtoTool, toStruct } from "../store/entry-codec.ts";

/** How long a cancelled call has to end, in milliseconds. */
const graceMs = 1_000;
/** How long the answer to a cancellation is waited for, in milliseconds: the grace, and the way there and back. */
const cancelTimeoutMs = 2_000;

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

    async execute(caller, call, signal) {
      // The key makes it safe to ask again: the call that runs is joined.
      for (let failures = 0; ; ) {
        try {
          const outcome = await boundary("tool.execute", () => executeOnce(client, caller, call, signal));
          if (outcome !== undefined) return outcome;
          failures += 1;
          log.warn({ runId: caller.runId, stepId: call.stepId }, "a tool's stream ended without an outcome");
        } catch (thrown) {
          if (signal.aborted) throw thrown;
          const error = toAppError(thrown);
          if (error.reason === "EPOCH_STALE") throw error;
          if (!isPassing(error) && error.reason !== "CANCELLED") {
            if (error.reason === "INTERNAL") log.error({ err: error, stepId: call.stepId }, "a tool's call failed");
            return { type: "error", error: { reason: error.reason, message: error.message } };
          }
          failures += 1;
          log.info(
            { runId: caller.runId, stepId: call.stepId, reason: error.reason },
            "a tool's call is asked for again",
          );
        }
        await pause(backoffMs(failures), signal);
      }
    },

    async cancel(caller, stepId): Promise<CancelledCall> {
      try {
        const { progress } = await boundary("tool.cancel", () =>
          client.cancelExecution(
            { idempotencyKey: stepId, epoch: caller.epoch, grace: durationFromMs(graceMs) },
            { ...optionsFor(caller, AbortSignal.timeout(cancelTimeoutMs)), timeoutMs: cancelTimeoutMs },
          ),
        );
        return progress === ExecutionProgress.MAY_STILL_RUN ? "running" : "ended";
      } catch (error) {
        log.warn({ err: error, runId: caller.runId, stepId }, "a cancellation was not confirmed");
        return "running";
      }
    },
  };
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
        outcome = { type: "value", value: toJson(ValueSchema, part.value) as Json };
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
