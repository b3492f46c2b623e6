import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { type Agent, AgentService } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { type Caller, type CallOptions, required } from "./caller.ts";
import { createListing, type Listing, type PageOptions } from "./page.ts";
import type { RunGraph } from "./runs/run-definition.ts";

/** What an agent is to be. */
export interface AgentOptions {
  /** Unique in the org: lower-case letters, digits and dashes, at most 63. */
  readonly name: string;
  /** What it is for; at most 1,024 characters. */
  readonly description?: string;
  /** The model, as `cadre.models` lists it. */
  readonly model: string;
  /** What the model is told first; at most 64 KiB in UTF-8. */
  readonly instructions?: string;
  /** The names of the tools that it may call; `*` is every tool of the org. None unless said. */
  readonly tools?: readonly string[];
  /** What ends a turn early. */
  readonly limits?: {
    /** How often the model may ask for tools in a turn; 16 unless said, at most 200. */
    readonly maxToolRounds?: number;
    /** How many tokens a turn may use, input and output; 200,000 unless said. */
    readonly maxTokens?: number;
    /** How long a turn may take, in milliseconds; 10 minutes unless said, at most a day. */
    readonly maxDurationMs?: number;
  };
  /** What `cadre.runs.start` runs by the agent's name; it has no part in turns. */
  readonly graph?: RunGraph<never, unknown>;
}

/** The agents of the org. */
export interface Agents {
  /**
   * Registers an agent, or a new revision of the one of that name. The same
   * definition again changes nothing.
   *
   * @throws CadreError `INVALID_ARGUMENT` and `INVALID_GRAPH` with `violations`, `MODEL_NOT_FOUND`
   */
  register(definition: AgentOptions, options?: CallOptions): Promise<Agent>;
  /** Returns an agent by its id. @throws CadreError `AGENT_NOT_FOUND` */
  get(agentId: string, options?: CallOptions): Promise<Agent>;
  /** Returns the agent of a name, or `undefined`. */
  find(name: string, options?: CallOptions): Promise<Agent | undefined>;
  /** Lists the org's agents, by name. */
  list(options?: PageOptions): Listing<Agent>;
}

/** Creates the agents of a client. */
export function createAgents(caller: Caller): Agents {
  const { method } = AgentService;
  return {
    async register({ name, description = "", model, instructions = "", tools = [], limits = {}, graph }, options) {
      const { maxToolRounds = 0, maxTokens = 0, maxDurationMs } = limits;
      const definition = {
        name,
        description,
        model,
        instructions,
        tools: [...tools],
        limits: {
          maxToolRounds,
          maxTokens: BigInt(maxTokens),
          ...(maxDurationMs === undefined ? {} : { maxDuration: durationFromMs(maxDurationMs) }),
        },
        ...(graph === undefined ? {} : { graph }),
      };
      const { agent } = await caller.unary(method.registerAgent, { definition }, options);
      return required(agent, "the agent");
    },
    async get(agentId, options) {
      const { agent } = await caller.unary(method.getAgent, { agentId }, options);
      return required(agent, "the agent");
    },
    async find(name, options) {
      const { agents } = await caller.unary(method.listAgents, { name, pageSize: 1 }, options);
      return agents.find((agent) => agent.definition?.name === name);
    },
    list(options = {}) {
      return createListing(options, async (pageToken) => {
        const request = { pageSize: options.pageSize ?? 0, pageToken };
        const { agents, nextPageToken } = await caller.unary(method.listAgents, request, { signal: options.signal });
        return { items: agents, nextPageToken };
      });
    },
  };
}
