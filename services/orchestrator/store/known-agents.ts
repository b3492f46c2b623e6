import type { Agent, AgentDefinition } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { BoundedMap } from "../../runtime/cache/bounded-map.ts";
import { isOutcomeUnknown } from "../../runtime/postgres/database-error.ts";
import type { AgentStore } from "./agent-store.ts";

/** How many agents are remembered. */
const maxKnown = 1_000;

/** How long nothing is remembered after a change whose outcome is unknown, in milliseconds. */
const settlingMs = 60_000;

/**
 * Remembers the agents that were looked up: the start of a run needs one before
 * anything else. For a process that nobody else writes agents beside.
 *
 * 1. What a change replaces is forgotten before the change is answered, and
 *    what was looked up while it was made is not remembered.
 * 2. A change whose connection was lost may come about later, while the database
 *    still works on it. Until that has surely ended, every agent is looked up.
 * 3. That there is no such agent is not remembered, so adding one forgets nothing.
 */
export class KnownAgents implements AgentStore {
  readonly #store: AgentStore;
  readonly #now: () => number;
  readonly #known = new BoundedMap<string, Agent>(maxKnown);
  /** Counts the beginnings and ends of changes. */
  #changes = 0;
  #remembersFromMs = 0;

  /**
   * @param store what is asked
   * @param now milliseconds that only grow
   */
  constructor(store: AgentStore, now: () => number = () => performance.now()) {
    this.#store = store;
    this.#now = now;
  }

  async register(orgId: string, agentId: string, definition: AgentDefinition, digest: string): Promise<Agent> {
    this.#changes += 1;
    try {
      return await this.#store.register(orgId, agentId, definition, digest);
    } catch (error) {
      if (isOutcomeUnknown(error)) this.#remembersFromMs = this.#now() + settlingMs; // 2
      throw error;
    } finally {
      this.#changes += 1; // 1
      this.#known.clear();
    }
  }

  /** 3 */
  ensure(orgId: string, agentId: string, definition: AgentDefinition, digest: string): Promise<Agent> {
    return this.#store.ensure(orgId, agentId, definition, digest);
  }

  find(orgId: string, agentId: string): Promise<Agent | undefined> {
    return this.#look(`${orgId} id ${agentId}`, () => this.#store.find(orgId, agentId));
  }

  findByName(orgId: string, name: string): Promise<Agent | undefined> {
    return this.#look(`${orgId} name ${name}`, () => this.#store.findByName(orgId, name));
  }

  list(orgId: string, after: string, limit: number): Promise<readonly Agent[]> {
    return this.#store.list(orgId, after, limit);
  }

  async #look(key: string, look: () => Promise<Agent | undefined>): Promise<Agent | undefined> {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const changes = this.#changes;
    const found = await look();
    if (found !== undefined && changes === this.#changes && this.#now() >= this.#remembersFromMs) {
      this.#known.set(key, found);
    }
    return found;
  }
}
