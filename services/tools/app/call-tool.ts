import { randomUUID } from "node:crypto";
import type { JsonObject } from "@bufbuild/protobuf";
import { AppError } from "../../runtime/errors/app-error.ts";
import { storedKey } from "../domain/call-key.ts";
import { cancelExecution } from "./cancel-execution.ts";
import type { ToolsDeps } from "./deps.ts";
import { executeTool } from "./execute-tool.ts";
import type { CallEvent } from "./watch-call.ts";

/** A call that somebody makes directly, outside of a run. */
export interface DirectCall {
  readonly orgId: string;
  readonly toolId: string;
  readonly arguments: JsonObject;
  /** The caller's key, under which the call is made once; empty for none. */
  readonly idempotencyKey: string;
  /** The principal that calls. */
  readonly actor: string;
  readonly traceparent: string;
  readonly requestId: string;
}

const noStep = { runId: "", stepId: "", afterFailures: 0, timeoutMs: undefined, heartbeatTimeoutMs: undefined };

/** How long a call that its caller left may take to stop. */
const leftGraceMs = 1_000;

/**
 * Calls a tool by the definition in force. Ending the iteration early cancels
 * the call. Throws as `executeTool`.
 */
export async function* callTool(deps: ToolsDeps, call: DirectCall, signal: AbortSignal): AsyncGenerator<CallEvent> {
  const digest = await digestInForce(deps, call);
  const key = storedKey("direct", call.idempotencyKey === "" ? randomUUID() : call.idempotencyKey);
  const execution = { ...call, digest, key, epoch: 0n, attempt: 1, ...noStep };
  let isRunning = false;
  try {
    for await (const event of executeTool(deps, execution, signal)) {
      isRunning = event.type !== "ended";
      yield event;
    }
  } finally {
    if (isRunning) {
      await cancelExecution(deps, { orgId: call.orgId, key, epoch: 0n, graceMs: leftGraceMs }).catch((error: unknown) =>
        // The caller is gone; the tool's timeout ends the call.
        deps.log.warn({ err: error, requestId: call.requestId }, "a call that its caller left could not be cancelled"),
      );
    }
  }
}

async function digestInForce(deps: ToolsDeps, call: DirectCall): Promise<string> {
  const { orgId, toolId } = call;
  const tool = deps.builtIns.get(orgId, toolId) ?? (await deps.tools.get(orgId, toolId));
  if (tool !== undefined) return tool.digest;
  const failure = new AppError("TOOL_NOT_FOUND", "no such tool");
  await deps.audit.refused({ ...call, runId: "", stepId: "" }, failure);
  throw failure;
}
