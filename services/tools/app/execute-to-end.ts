import { AppError } from "../../runtime/errors/app-error.ts";
import type { Outcome } from "../domain/call.ts";
import type { ToolsDeps } from "./deps.ts";
import { executeBuiltIn } from "./execute-built-in.ts";
import { executeTool, type ToolCall } from "./execute-tool.ts";

/**
 * Executes a call as `executeTool` does, for somebody who only wants its
 * outcome. Of a tool that answers at once, that is there at once.
 *
 * @throws AppError as `executeTool`; CANCELLED if the signal aborts first, which ends the waiting and nothing else
 */
export function executeToEnd(deps: ToolsDeps, call: ToolCall, signal: AbortSignal): Outcome | Promise<Outcome> {
  return executeBuiltIn(deps, call, signal) ?? lastOutcome(deps, call, signal);
}

async function lastOutcome(deps: ToolsDeps, call: ToolCall, signal: AbortSignal): Promise<Outcome> {
  for await (const event of executeTool(deps, call, signal, { isResumed: true })) {
    if (event.type === "ended") return event.outcome;
  }
  throw new AppError("CANCELLED", "the caller left before the call ended");
}
