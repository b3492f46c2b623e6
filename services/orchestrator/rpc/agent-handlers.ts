import { create } from "@bufbuild/protobuf";
import { AgentDefinitionSchema, AgentService } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import type { ServiceImpl } from "@connectrpc/connect";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toUuid } from "../../runtime/ids/id.ts";
import type { PageTokens } from "../../runtime/page/page-token.ts";
import { requirePrincipal } from "../../runtime/rpc/request-context.ts";
import { type AgentDeps, ensureAssistant, findAgent, registerAgent } from "../app/agents.ts";
import type { CheckedGraphs } from "../app/graph/checked-graphs.ts";
import { pageSize } from "./page-size.ts";

const listMethod = `${AgentService.typeName}/ListAgents`;

export interface AgentHandlerDeps extends AgentDeps {
  readonly graphs: CheckedGraphs;
  readonly pages: PageTokens;
}

/** The handlers of AgentService. */
export function agentHandlers(deps: AgentHandlerDeps): ServiceImpl<typeof AgentService> {
  return {
    async registerAgent({ definition }, context) {
      const orgId = toUuid("org", requirePrincipal(context).orgId);
      return { agent: await registerAgent(deps, orgId, definition ?? create(AgentDefinitionSchema)) };
    },
    async listAgents(request, context) {
      const { orgId } = requirePrincipal(context);
      const org = toUuid("org", orgId);
      const scope = { orgId, method: listMethod, filter: request.name };
      const after = deps.pages.open(scope, request.pageToken) ?? "";
      await ensureAssistant(deps, org);
      if (request.name !== "") {
        const agent = await deps.agents.findByName(org, request.name);
        return { agents: agent === undefined ? [] : [agent] };
      }
      const size = pageSize(request.pageSize);
      const agents = await deps.agents.list(org, after, size + 1);
      const page = agents.slice(0, size);
      const last = page.at(-1)?.definition?.name;
      return {
        agents: [...page],
        nextPageToken: agents.length > size && last !== undefined ? deps.pages.seal(scope, last) : "",
      };
    },
    async getAgent({ agentId }, context) {
      if (agentId === "") throw new AppError("AGENT_NOT_FOUND", "no such agent");
      return { agent: await findAgent(deps, toUuid("org", requirePrincipal(context).orgId), agentId, "") };
    },
  };
}
