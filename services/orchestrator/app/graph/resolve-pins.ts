import { fromBinary } from "@bufbuild/protobuf";
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { AgentDefinitionSchema } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { AppError } from "../../../runtime/errors/app-error.ts";
import type { GraphStarted, PinnedAgent } from "../../domain/entry.ts";
import { type Graph, graphLimits } from "../../domain/graph/graph.ts";
import type { Plan } from "../../domain/graph/plan.ts";
import type { ModelCatalog } from "../../models/model.ts";
import type { AgentStore } from "../../store/agent-store.ts";
import { fromProtoGraph } from "../../store/graph-codec.ts";
import { toPinnedAgent } from "../../store/proto-values.ts";
import { type AgentDeps, ensureAssistant } from "../agents.ts";
import { untilAvailable } from "../backoff.ts";
import type { ToolRunner } from "../ports.ts";
import { planOf } from "./plans.ts";

/** Where what a graph names is looked up. */
export interface PinSources extends AgentDeps {
  readonly tools: Pick<ToolRunner, "resolve">;
}

/**
 * Looks up everything that a graph names, in its children too, so that its run
 * holds on to what there is now.
 *
 * @param orgUuid the org's UUID
 * @throws AppError AGENT_NOT_FOUND, TOOL_NOT_FOUND, MODEL_NOT_FOUND, MODEL_KEY_MISSING, INVALID_GRAPH
 */
export async function resolvePins(
  sources: PinSources,
  plan: Plan,
  orgUuid: string,
  caller: {
    readonly principal: Principal;
    readonly requestId: string;
    readonly traceparent: string;
    readonly runId: string;
  },
  signal: AbortSignal,
): Promise<GraphStarted> {
  const tools = new Set(plan.tools);
  const models = new Set(plan.models);
  const agents = new Map<string, PinnedAgent>();
  const graphs = new Map<string, Graph>();
  const queue: { readonly name: string; readonly depth: number }[] = plan.agents.map((name) => ({ name, depth: 1 }));
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    if (agents.has(next.name)) continue;
    if (next.depth > graphLimits.childDepth) {
      throw new AppError(
        "INVALID_GRAPH",
        `the agent ${next.name} stands more than ${graphLimits.childDepth} graphs deep`,
      );
    }
    const { agent, graph } = await findAgent(sources, orgUuid, next.name);
    agents.set(next.name, agent);
    models.add(agent.model);
    for (const tool of agent.tools) tools.add(tool);
    if (graph === undefined) continue;
    graphs.set(next.name, graph);
    const child = planOf(graph);
    for (const tool of child.tools) tools.add(tool);
    for (const model of child.models) models.add(model);
    queue.push(...child.agents.map((name) => ({ name, depth: next.depth + 1 })));
  }
  const names = [...tools];
  const pinned =
    names.length === 0
      ? []
      : await untilAvailable(
          () => sources.tools.resolve({ ...caller, sessionId: "", epoch: 0n }, names, signal),
          signal,
        );
  const known = new Set(pinned.map(({ name }) => name));
  const missing = plan.tools.filter((name) => !known.has(name));
  if (missing.length > 0) throw new AppError("TOOL_NOT_FOUND", `no such tool: ${missing.join(", ")}`);
  return {
    type: "graph.started",
    tools: pinned,
    agents: [...agents.values()],
    graphs,
    models: new Map([...models].map((name) => modelOf(sources.models, name === "" ? sources.defaultModel : name))),
  };
}

/** What a child needs of its parent's pins. */
export function pinsOfChild(started: GraphStarted, plan: Plan): GraphStarted {
  const agents = started.agents.filter(({ name }) => plan.agents.includes(name));
  const every = agents.some(({ tools }) => tools.includes("*")) || started.graphs.size > 0;
  const tools = new Set([...plan.tools, ...agents.flatMap((agent) => agent.tools)]);
  return {
    ...started,
    agents: started.graphs.size > 0 ? started.agents : agents,
    tools: every ? started.tools : started.tools.filter(({ name }) => tools.has(name)),
  };
}

async function findAgent(
  sources: AgentDeps & { readonly agents: AgentStore },
  orgUuid: string,
  name: string,
): Promise<{ readonly agent: PinnedAgent; readonly graph: Graph | undefined }> {
  const found =
    name === "assistant" ? await ensureAssistant(sources, orgUuid) : await sources.agents.findByName(orgUuid, name);
  if (found?.definition === undefined) throw new AppError("AGENT_NOT_FOUND", `no agent ${name} is registered`);
  return {
    agent: toPinnedAgent(found.agentId, found.revision, found.digest, found.definition),
    graph: found.definition.graph === undefined ? undefined : fromProtoGraph(found.definition.graph),
  };
}

function modelOf(models: ModelCatalog, name: string): readonly [string, number] {
  const model = models.find(name);
  if (model === undefined) throw new AppError("MODEL_NOT_FOUND", `no model ${name} is configured`);
  if (!model.available) throw new AppError("MODEL_KEY_MISSING", `no key for the model ${name} is configured`);
  return [name, model.contextTokens];
}

/** The graph of an agent as it was pinned; undefined if it has none. */
export function graphOf(agent: PinnedAgent): Graph | undefined {
  const { graph } = fromBinary(AgentDefinitionSchema, agent.encoded);
  return graph === undefined ? undefined : fromProtoGraph(graph);
}
