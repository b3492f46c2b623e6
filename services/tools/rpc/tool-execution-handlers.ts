import { type ExecuteToolRequest, ToolExecutionService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import type { HandlerContext } from "@connectrpc/connect";
import { toUuid } from "../../runtime/ids/id.ts";
import { type Implementation, implement } from "../../runtime/rpc/implementation.ts";
import { requestContext, requirePrincipal } from "../../runtime/rpc/request-context.ts";
import { cancelExecution } from "../app/cancel-execution.ts";
import type { ToolsDeps } from "../app/deps.ts";
import { executeToEnd } from "../app/execute-to-end.ts";
import { executeTool, type ToolCall } from "../app/execute-tool.ts";
import { resolveTools } from "../app/resolve-tools.ts";
import type { Outcome } from "../domain/call.ts";
import { storedKey } from "../domain/call-key.ts";
import { fromOutcome, fromPin, fromProgress, toExecuteToolResponse, toMs } from "./convert.ts";

const defaultGraceMs = 1_000;

/** What the orchestrator needs of tools. */
export function toolExecutionHandlers(deps: ToolsDeps): Implementation<typeof ToolExecutionService> {
  return implement(ToolExecutionService, {
    async resolveTools({ names }, context) {
      const { pins, missing } = await resolveTools(deps, orgUuid(context), names);
      return { tools: pins.map(fromPin), missing: [...missing] };
    },
    async *executeTool(request, context) {
      const call = toToolCall(request, context);
      for await (const event of executeTool(deps, call, context.signal, { isResumed: true })) {
        yield toExecuteToolResponse(event);
      }
    },
    executeToolUnary({ call: request }, context) {
      if (request === undefined) throw new TypeError("the request was not validated");
      const outcome = executeToEnd(deps, toToolCall(request, context), context.signal);
      return outcome instanceof Promise ? outcome.then(toUnaryResponse) : toUnaryResponse(outcome);
    },
    async cancelExecution({ idempotencyKey, epoch, grace }, context) {
      const progress = await cancelExecution(deps, {
        orgId: orgUuid(context),
        key: storedKey("step", idempotencyKey),
        epoch,
        graceMs: grace === undefined ? defaultGraceMs : toMs(grace),
      });
      return { progress: fromProgress(progress) };
    },
  });
}

function toToolCall(request: ExecuteToolRequest, context: HandlerContext): ToolCall {
  const { traceparent, requestId } = requestContext(context.values);
  const principal = requirePrincipal(context);
  return {
    orgId: toUuid("org", principal.orgId),
    toolId: toUuid("tool", request.toolId),
    digest: request.digest,
    arguments: request.arguments ?? {},
    key: storedKey("step", request.idempotencyKey),
    epoch: request.epoch,
    attempt: request.attempt,
    afterFailures: request.afterFailures,
    timeoutMs: request.timeout === undefined ? undefined : toMs(request.timeout),
    heartbeatTimeoutMs: request.heartbeatTimeout === undefined ? undefined : toMs(request.heartbeatTimeout),
    runId: request.runId,
    stepId: request.stepId,
    actor: principal.subject,
    traceparent,
    requestId,
  };
}

function toUnaryResponse(outcome: Outcome) {
  return { outcome: fromOutcome(outcome) };
}

function orgUuid(context: HandlerContext): string {
  return toUuid("org", requirePrincipal(context).orgId);
}
