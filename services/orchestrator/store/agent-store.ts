import type { Agent, AgentDefinition } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";

/** The agents of orgs. Each call is one transaction and sees one org's rows. Ids are UUIDs as text. */
export interface AgentStore {
  /**
   * Stores an agent, or a new revision of the one of that name, or nothing if
   * the digest is the one stored.
   *
   * @param agentId taken if there is none of that name yet
   */
  register(orgId: string, agentId: string, definition: AgentDefinition, digest: string): Promise<Agent>;
  /** Stores an agent unless there is one of that name, and returns the one there is. */
  ensure(orgId: string, agentId: string, definition: AgentDefinition, digest: string): Promise<Agent>;
  find(orgId: string, agentId: string): Promise<Agent | undefined>;
  findByName(orgId: string, name: string): Promise<Agent | undefined>;
  /** Agents whose name comes after `after`, by name. */
  list(orgId: string, after: string, limit: number): Promise<readonly Agent[]>;
}
