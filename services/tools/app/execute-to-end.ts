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
  let answer: Outcome | Promise<Outcome> | undefined;
  try {
    answer = executeBuiltIn(deps, call, signal);
  } catch (thrown) {
    return deps.audit.refused(call, thrown).then(() => Promise.reject(thrown));
  }
  if (answer === undefined) return lastOutcome(deps, call, signal);
  if (answer instanceof Promise) return answer.then((outcome) => deps.audit.ended(call, outcome));
  return deps.audit.ended(call, answer);
}

async function lastOutcome(deps: ToolsDeps, call: ToolCall, signal: AbortSignal): Promise<Outcome> {
  for await (const event of executeTool(deps, call, signal, { isResumed: true })) {
    if (event.type === "ended") return event.outcome;
  }
  throw new AppError("CANCELLED", "the caller left before the call ended");
}
