import { ToolService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import type { HandlerContext } from "@connectrpc/connect";
import { toUuid } from "../../runtime/ids/id.ts";
import type { PageTokens } from "../../runtime/page/page-token.ts";
import { type Implementation, implement } from "../../runtime/rpc/implementation.ts";
import { requestContext, requirePrincipal } from "../../runtime/rpc/request-context.ts";
import { callTool } from "../app/call-tool.ts";
import type { ToolsDeps } from "../app/deps.ts";
import { getTool } from "../app/get-tool.ts";
import { listTools } from "../app/list-tools.ts";
import { registerTool } from "../app/register-tool.ts";
import { fromOrgTool, toCallToolResponse, toDefinition } from "./convert.ts";

const defaultPageSize = 50;

/** The tools of an org, for people and apps. */
export function toolHandlers(deps: ToolsDeps, pages: PageTokens): Implementation<typeof ToolService> {
  return implement(ToolService, {
    async registerTool({ definition }, context) {
      const tool = await registerTool(deps, orgUuid(context), toDefinition(definition));
      return { tool: fromOrgTool({ type: "registered", tool }) };
    },
    async listTools({ pageSize, pageToken }, context) {
      const { orgId } = requirePrincipal(context);
      const scope = { orgId, method: "cadre.tools.v1.ToolService/ListTools", filter: "" };
      const after = pages.open(scope, pageToken) ?? "";
      const { tools, next } = await listTools(deps, toUuid("org", orgId), after, pageSize || defaultPageSize);
      return { tools: tools.map(fromOrgTool), nextPageToken: next === undefined ? "" : pages.seal(scope, next) };
    },
    async getTool({ toolId }, context) {
      return { tool: fromOrgTool(await getTool(deps, orgUuid(context), toUuid("tool", toolId))) };
    },
    async *callTool({ toolId, arguments: args }, context) {
      const { idempotencyKey, traceparent, requestId } = requestContext(context.values);
      const call = {
        orgId: orgUuid(context),
        toolId: toUuid("tool", toolId),
        arguments: args ?? {},
        idempotencyKey,
        actor: requirePrincipal(context).subject,
        traceparent,
        requestId,
      };
      for await (const event of callTool(deps, call, context.signal)) {
        const response = toCallToolResponse(event);
        if (response !== undefined) yield response;
      }
    },
  });
}

function orgUuid(context: HandlerContext): string {
  return toUuid("org", requirePrincipal(context).orgId);
}
