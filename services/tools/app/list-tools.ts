import type { StoredTool } from "../store/tool-store.ts";
import type { OrgBuiltIn } from "./built-in-catalog.ts";
import type { ToolsDeps } from "./deps.ts";

/** A tool of an org: registered, or built in. */
export type OrgTool =
  | { readonly type: "registered"; readonly tool: StoredTool }
  | { readonly type: "built_in"; readonly tool: OrgBuiltIn };

/** A page of an org's tools in the order of their names, after a name. `next` is the name to go on after. */
export async function listTools(
  deps: Pick<ToolsDeps, "tools" | "builtIns">,
  orgId: string,
  afterName: string,
  pageSize: number,
): Promise<{ readonly tools: readonly OrgTool[]; readonly next: string | undefined }> {
  const registered = await deps.tools.list(orgId, afterName, pageSize + 1);
  const tools = [
    ...registered.map((tool): OrgTool => ({ type: "registered", tool })),
    ...deps.builtIns
      .list(orgId)
      .filter(({ tool }) => tool.definition.name > afterName)
      .map((tool): OrgTool => ({ type: "built_in", tool })),
  ].sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
  const page = tools.slice(0, pageSize);
  const last = page.at(-1);
  return { tools: page, next: tools.length > pageSize && last !== undefined ? nameOf(last) : undefined };
}

function nameOf(tool: OrgTool): string {
  return tool.type === "registered" ? tool.tool.name : tool.tool.tool.definition.name;
}
