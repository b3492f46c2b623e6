import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type Agent,
  type AgentDefinition,
  AgentDefinitionSchema,
  AgentSchema,
} from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { type Selectable, sql, type Transaction } from "kysely";
import { BoundedMap } from "../../runtime/cache/bounded-map.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { createSharedQuestions } from "../../runtime/wait/shared-question.ts";
import type { AgentStore } from "./agent-store.ts";
import type { OrchestratorSchema } from "./schema.ts";

type AgentRow = Selectable<OrchestratorSchema["agent"]>;

/** Definitions that are held decoded. */
const maxDefinitions = 256;

/** Agents in PostgreSQL. Equal definitions are one message, which nobody changes. */
export class PostgresAgentStore implements AgentStore {
  readonly #database: Database<OrchestratorSchema>;
  readonly #definitions = new BoundedMap<string, AgentDefinition>(maxDefinitions);
  readonly #lookUps = createSharedQuestions<Agent | undefined>();

  constructor(database: Database<OrchestratorSchema>) {
    this.#database = database;
  }

  register(orgId: string, agentId: string, definition: AgentDefinition, digest: string) {
    return this.#database.asOrg(orgId, async (transaction) => {
      const row = await insert(orgId, agentId, definition, digest, transaction)
        .onConflict((conflict) =>
          conflict
            .columns(["org_id", "name"])
            .doUpdateSet({
              definition: (values) => values.ref("excluded.definition"),
              digest: (values) => values.ref("excluded.digest"),
              revision: sql<number>`agent.revision + 1`,
              updated_at: sql<Date>`clock_timestamp()`,
            })
            .whereRef("agent.digest", "<>", "excluded.digest"),
        )
        .returningAll()
        .executeTakeFirst();
      return row === undefined ? await this.#byName(transaction, definition.name) : this.#toAgent(row);
    });
  }

  ensure(orgId: string, agentId: string, definition: AgentDefinition, digest: string) {
    return this.#database.asOrg(orgId, async (transaction) => {
      const row = await insert(orgId, agentId, definition, digest, transaction)
        .onConflict((conflict) => conflict.columns(["org_id", "name"]).doNothing())
        .returningAll()
        .executeTakeFirst();
      return row === undefined ? await this.#byName(transaction, definition.name) : this.#toAgent(row);
    });
  }

  find(orgId: string, agentId: string) {
    return this.#findOne(orgId, "agent_id", agentId);
  }

  findByName(orgId: string, name: string) {
    return this.#findOne(orgId, "name", name);
  }

  list(orgId: string, after: string, limit: number) {
    return this.#database.asOrg(orgId, async (transaction) => {
      const rows = await transaction
        .selectFrom("agent")
        .selectAll()
        .where("name", ">", after)
        .orderBy("name")
        .limit(limit)
        .execute();
      return rows.map((row) => this.#toAgent(row));
    });
  }

  /** Runs that start at once ask for the same agent: whoever comes while it is looked up shares the next look. */
  #findOne(orgId: string, by: "agent_id" | "name", value: string): Promise<Agent | undefined> {
    return this.#lookUps.askFromNow(`${orgId} ${by} ${value}`, async () => {
      const query = this.#database.engine.selectFrom("agent").selectAll().where(by, "=", value);
      const [[row]] = await this.#database.batchAsOrg(orgId, [query.compile()]);
      return row === undefined ? undefined : this.#toAgent(row);
    });
  }

  async #byName(transaction: Transaction<OrchestratorSchema>, name: string): Promise<Agent> {
    const row = await transaction.selectFrom("agent").selectAll().where("name", "=", name).executeTakeFirstOrThrow();
    return this.#toAgent(row);
  }

  #toAgent(row: AgentRow): Agent {
    let definition = this.#definitions.get(row.digest);
    if (definition === undefined) {
      definition = fromBinary(AgentDefinitionSchema, row.definition);
      this.#definitions.set(row.digest, definition);
    }
    return create(AgentSchema, {
      agentId: fromUuid("agt", row.agent_id),
      definition,
      revision: row.revision,
      digest: row.digest,
      createdAt: timestampFromDate(row.created_at),
      updatedAt: timestampFromDate(row.updated_at),
    });
  }
}

function insert(
  orgId: string,
  agentId: string,
  definition: AgentDefinition,
  digest: string,
  transaction: Transaction<OrchestratorSchema>,
) {
  return transaction.insertInto("agent").values({
    agent_id: agentId,
    org_id: orgId,
    name: definition.name,
    definition: Buffer.from(toBinary(AgentDefinitionSchema, definition)),
    revision: 1,
    digest,
  });
}
