import { createHash } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { type Agent, type AgentDefinition, AgentDefinitionSchema } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { ModelCatalog } from "../models/model.ts";
import type { AgentStore } from "../store/agent-store.ts";
import { fromProtoGraph, graphDigest } from "../store/graph-codec.ts";
import type { CheckedGraphs } from "./graph/checked-graphs.ts";

/** The agent that every org has. */
export const assistantName = "assistant";

export interface AgentDeps {
  readonly agents: AgentStore;
  readonly models: ModelCatalog;
  /** The model of the assistant. */
  readonly defaultModel: string;
}

/**
 * Registers an agent, or a new revision of it. How its graph fits tools is
 * looked at when a run of it starts, since they may come later.
 *
 * @param orgId the org's UUID
 * @throws AppError MODEL_NOT_FOUND; INVALID_GRAPH, LIMIT_EXCEEDED for its graph
 */
export async function registerAgent(
  deps: AgentDeps & { readonly graphs: CheckedGraphs },
  orgId: string,
  definition: AgentDefinition,
): Promise<Agent> {
  if (definition.graph !== undefined) deps.graphs.take(definition.graph, "definition.graph");
  if (deps.models.find(definition.model) === undefined) {
    throw new AppError("MODEL_NOT_FOUND", `definition.model: no model ${definition.model} is configured`);
  }
  return await deps.agents.register(orgId, toUuid("agt", newId("agt")), definition, digestOf(definition));
}

/** Finds an agent by its id, or by its name if that is empty. Throws AGENT_NOT_FOUND. */
export async function findAgent(deps: AgentDeps, orgId: string, agentId: string, name: string): Promise<Agent> {
  const found =
    agentId !== "" ? await deps.agents.find(orgId, toUuid("agt", agentId)) : await findByName(deps, orgId, name);
  if (found === undefined) throw new AppError("AGENT_NOT_FOUND", "no such agent");
  return found;
}

/** The agent that every org has, made when it is needed first. */
export async function ensureAssistant(deps: AgentDeps, orgId: string): Promise<Agent> {
  const known = await deps.agents.findByName(orgId, assistantName);
  if (known !== undefined) return known;
  const definition = create(AgentDefinitionSchema, {
    name: assistantName,
    description: "Answers with the installation's default model and every tool of the org.",
    model: deps.defaultModel,
    instructions: "You are a helpful assistant. Use the tools you have when they help.",
    tools: ["*"],
  });
  return await deps.agents.ensure(orgId, toUuid("agt", newId("agt")), definition, digestOf(definition));
}

async function findByName(deps: AgentDeps, orgId: string, name: string): Promise<Agent | undefined> {
  if (name === "" || name === assistantName) return await ensureAssistant(deps, orgId);
  return await deps.agents.findByName(orgId, name);
}

/**
 * Over the definition's bytes, which are the same for equal definitions as far
 * as they have no maps. A graph may have some, so its own digest stands for it.
 */
function digestOf({ graph, ...definition }: AgentDefinition): string {
  const hash = createHash("sha256").update(toBinary(AgentDefinitionSchema, definition));
  if (graph !== undefined) hash.update(graphDigest(fromProtoGraph(graph)));
  return `sha256:${hash.digest("hex")}`;
}
