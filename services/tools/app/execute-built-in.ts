import { AppError } from "../../runtime/errors/app-error.ts";
import type { Outcome } from "../domain/call.ts";
import { checkArguments } from "./check-arguments.ts";
import type { ToolsDeps } from "./deps.ts";
import type { ToolCall } from "./execute-tool.ts";

/**
 * Executes a call of a built-in tool in this process, without the database:
 * built-in tools have no side effects, so there is nothing to record, and the
 * same key again runs them again. A tool that answers at once is answered at
 * once.
 *
 * @returns `undefined` if the tool is not a built-in one
 * @throws AppError DEFINITION_CHANGED, TOOL_ARGUMENTS_INVALID
 */
export function executeBuiltIn(
  deps: Pick<ToolsDeps, "builtIns" | "running">,
  call: ToolCall,
  signal: AbortSignal,
): Outcome | Promise<Outcome> | undefined {
  const builtIn = deps.builtIns.get(call.orgId, call.toolId);
  if (builtIn === undefined) return undefined;
  if (builtIn.digest !== call.digest) throw definitionChanged();
  checkArguments(builtIn.input, call.arguments);
  const { orgId, requestId, key } = call;
  const timeoutMs = Math.min(builtIn.tool.definition.timeoutMs, call.timeoutMs ?? Number.POSITIVE_INFINITY);
  return deps.running.run({ orgId, requestId, key, tool: builtIn.tool, input: call.arguments, timeoutMs, signal });
}

/** The failure of a call that pinned another definition than the tool has. */
export function definitionChanged(): AppError {
  return new AppError("DEFINITION_CHANGED", "the tool does not have this definition");
}
