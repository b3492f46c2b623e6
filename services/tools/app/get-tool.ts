import { AppError } from "../../runtime/errors/app-error.ts";
import type { ToolsDeps } from "./deps.ts";
import type { OrgTool } from "./list-tools.ts";

/** A tool of an org. Throws AppError TOOL_NOT_FOUND. */
export async function getTool(
  deps: Pick<ToolsDeps, "tools" | "builtIns">,
  orgId: string,
  toolId: string,
): Promise<OrgTool> {
  const builtIn = deps.builtIns.get(orgId, toolId);
  if (builtIn !== undefined) return { type: "built_in", tool: builtIn };
  const tool = await deps.tools.get(orgId, toolId);
  if (tool === undefined) throw new AppError("TOOL_NOT_FOUND", "no such tool");
  return { type: "registered", tool };
}
