import { create, fromJson, type JsonValue, type MessageInitShape, toJson } from "@bufbuild/protobuf";
import { type Duration, durationFromMs, timestampFromDate, type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import {
  type CallToolResponse,
  CallToolResponseSchema,
  type ExecuteToolResponse,
  ExecuteToolResponseSchema,
  ExecutionProgress,
  PinnedToolSchema,
  SideEffects as ProtoSideEffects,
  type Tool,
  type ToolDefinition,
  ToolDefinitionSchema,
  type ToolError,
  ToolErrorSchema,
  ToolKind,
  ToolSchema,
} from "@cadre/gen/cadre/tools/v1/tool_pb";
import {
  type ConnectResponse,
  ConnectResponseSchema,
  type ReportResultRequest,
} from "@cadre/gen/cadre/tools/v1/tool_worker_pb";
import type { FailureReason } from "../../runtime/errors/app-error.ts";
import { reasonName, reasonNumber } from "../../runtime/errors/failure.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { WorkerMessage } from "../app/connect-worker.ts";
import type { OrgTool } from "../app/list-tools.ts";
import type { Reported } from "../app/report-result.ts";
import type { Pin } from "../app/resolve-tools.ts";
import type { CallEvent } from "../app/watch-call.ts";
import { type Outcome, type Progress, workerLimits } from "../domain/call.ts";
import { type Definition, defaultTimeoutMs, type SideEffects } from "../domain/definition.ts";

/** A definition of a request, with the defaults filled in. */
export function toDefinition(definition: ToolDefinition | undefined): Definition {
  if (definition === undefined) throw new TypeError("the request was not validated");
  const { name, description, inputSchema, outputSchema, sideEffects, timeout } = definition;
  return {
    name,
    description,
    inputSchema: inputSchema ?? {},
    outputSchema,
    sideEffects: sideEffectsNames[sideEffects],
    timeoutMs: timeout === undefined ? defaultTimeoutMs : toMs(timeout),
  };
}

const sideEffectsNames: Readonly<Record<ProtoSideEffects, SideEffects>> = {
  [ProtoSideEffects.UNSPECIFIED]: "EFFECTFUL",
  [ProtoSideEffects.NONE]: "NONE",
  [ProtoSideEffects.IDEMPOTENT]: "IDEMPOTENT",
  [ProtoSideEffects.EFFECTFUL]: "EFFECTFUL",
};

/** A duration in whole milliseconds, rounded up. */
export function toMs(duration: Duration): number {
  return Number(duration.seconds) * 1_000 + Math.ceil(duration.nanos / 1_000_000);
}

function fromDefinition(definition: Definition): ToolDefinition {
  const { name, description, inputSchema, outputSchema, sideEffects, timeoutMs } = definition;
  return create(ToolDefinitionSchema, {
    name,
    description,
    inputSchema,
    ...(outputSchema === undefined ? {} : { outputSchema }),
    sideEffects: ProtoSideEffects[sideEffects],
    timeout: durationFromMs(timeoutMs),
  });
}

export function fromOrgTool(tool: OrgTool): Tool {
  if (tool.type === "built_in") {
    const { toolId, digest, tool: builtIn } = tool.tool;
    return create(ToolSchema, {
      toolId: fromUuid("tool", toolId),
      definition: fromDefinition(builtIn.definition),
      digest,
      kind: ToolKind.BUILT_IN,
    });
  }
  const { toolId, definition, digest, workers, createdAt, updatedAt } = tool.tool;
  return create(ToolSchema, {
    toolId: fromUuid("tool", toolId),
    definition: fromDefinition(definition),
    digest,
    kind: ToolKind.WORKER,
    workers,
    createdAt: timestampFromDate(createdAt),
    updatedAt: timestampFromDate(updatedAt),
  });
}

export function fromPin({ toolId, digest, definition, isSilent }: Pin) {
  return create(PinnedToolSchema, {
    toolId: fromUuid("tool", toolId),
    digest,
    definition: fromDefinition(definition),
    silent: isSilent,
  });
}

/** A part of a direct call's answer; `undefined` for what its caller is not told. */
export function toCallToolResponse(event: CallEvent): CallToolResponse | undefined {
  switch (event.type) {
    case "started":
      return undefined;
    case "output":
      return create(CallToolResponseSchema, { part: { case: "output", value: event.text } });
    case "ended":
      return create(CallToolResponseSchema, { part: fromOutcome(event.outcome) });
  }
}

export function toExecuteToolResponse(event: CallEvent): ExecuteToolResponse {
  switch (event.type) {
    case "started": {
      const { workerName } = event;
      return create(ExecuteToolResponseSchema, { part: { case: "started", value: { workerName } } });
    }
    case "output":
      return create(ExecuteToolResponseSchema, { part: { case: "output", value: event.text } });
    case "ended":
      return create(ExecuteToolResponseSchema, { part: fromOutcome(event.outcome) });
  }
}

export function fromOutcome(
  outcome: Outcome,
): { readonly case: "result"; readonly value: Value } | { readonly case: "error"; readonly value: ToolError } {
  if (outcome.type === "result") return { case: "result", value: fromJson(ValueSchema, outcome.value) };
  const { reason, message, progress } = outcome;
  return {
    case: "error",
    value: create(ToolErrorSchema, {
      reason: reasonNumber(reason),
      message,
      progress: progress === undefined ? ExecutionProgress.UNSPECIFIED : fromProgress(progress),
    }),
  };
}

export function fromProgress(progress: Progress): ExecutionProgress {
  return ExecutionProgress[progress];
}

/** Reasons that a worker may give; another one would claim a fault that is not the tool's. */
const workerReasons: ReadonlySet<FailureReason> = new Set([
  "TOOL_FAILED",
  "TOOL_ARGUMENTS_INVALID",
  "TOOL_RESULT_INVALID",
  "DEADLINE_EXCEEDED",
]);

const maxMessageCharacters = 8_192;

/** How a handler ended, as its worker reports it. */
export function toReported(outcome: ReportResultRequest["outcome"]): Reported {
  switch (outcome.case) {
    case "result":
      return { type: "result", value: toJson(ValueSchema, outcome.value) satisfies JsonValue };
    case "error": {
      const reason = reasonName(outcome.value.reason);
      return {
        type: "error",
        reason: workerReasons.has(reason) ? reason : "TOOL_FAILED",
        message: outcome.value.message.slice(0, maxMessageCharacters).toWellFormed(),
      };
    }
    case "cancelled":
      return { type: "cancelled" };
    case undefined:
      throw new TypeError("the request was not validated");
  }
}

/** A message of a worker's stream. */
export function toConnectResponse(message: WorkerMessage): ConnectResponse {
  return create(ConnectResponseSchema, { message: toWorkerMessage(message) });
}

function toWorkerMessage(
  message: WorkerMessage,
): NonNullable<MessageInitShape<typeof ConnectResponseSchema>["message"]> {
  switch (message.type) {
    case "registered":
      return {
        case: "registered",
        value: {
          workerId: fromUuid("wrk", message.workerId),
          heartbeatInterval: durationFromMs(workerLimits.heartbeatMs),
          digests: [...message.digests],
        },
      };
    case "call": {
      const { call, tool } = message;
      return {
        case: "call",
        value: {
          callId: fromUuid("call", call.handoutId),
          tool,
          digest: call.digest,
          arguments: call.arguments,
          idempotencyKey: call.key,
          deadline: timestampFromDate(call.deadline),
          ...(call.heartbeatTimeoutMs === undefined
            ? {}
            : { heartbeatTimeout: durationFromMs(call.heartbeatTimeoutMs) }),
          attempt: call.attempt,
          runId: call.runId,
          traceparent: call.traceparent,
          requestId: call.requestId,
        },
      };
    }
    case "cancel":
      return { case: "cancel", value: { callId: fromUuid("call", message.handoutId) } };
    case "drain":
      return { case: "drain", value: {} };
    case "keepalive":
      return { case: "keepalive", value: {} };
  }
}
