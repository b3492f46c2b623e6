import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type Agent,
  type AgentDefinition,
  AgentDefinitionSchema,
  AgentSchema,
} from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { type Selectable, sql, type Transaction } from "kysely";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import type { AgentStore } from "./agent-store.ts";
import type { OrchestratorSchema } from "./schema.ts";

/** Agents in PostgreSQL. */
export class PostgresAgentStore implements AgentStore {
  readonly #database: Database<OrchestratorSchema>;

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
      return row === undefined ? await byName(transaction, definition.name) : toAgent(row);
    });
  }

  ensure(orgId: string, agentId: string, definition: AgentDefinition, digest: string) {
    return this.#database.asOrg(orgId, async (transaction) => {
      const row = await insert(orgId, agentId, definition, digest, transaction)
        .onConflict((conflict) => conflict.columns(["org_id", "name"]).doNothing())
        .returningAll()
        .executeTakeFirst();
      return row === undefined ? await byName(transaction, definition.name) : toAgent(row);
    });
  }

  find(orgId: string, agentId: string) {
    return this.#database.asOrg(orgId, async (transaction) => {
      const row = await transaction.selectFrom("agent").selectAll().where("agent_id", "=", agentId).executeTakeFirst();
      return row === undefined ? undefined : toAgent(row);
    });
  }

  findByName(orgId: string, name: string) {
    return this.#database.asOrg(orgId, async (transaction) => {
      const row = await transaction.selectFrom("agent").selectAll().where("name", "=", name).executeTakeFirst();
      return row === undefined ? undefined : toAgent(row);
    });
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
      return rows.map(toAgent);
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

async function byName(transaction: Transaction<OrchestratorSchema>, name: string): Promise<Agent> {
  return toAgent(await transaction.selectFrom("agent").selectAll().where("name", "=", name).executeTakeFirstOrThrow());
}

function toAgent(row: Selectable<OrchestratorSchema["agent"]>): Agent {
  return create(AgentSchema, {
    agentId: fromUuid("agt", row.agent_id),
    definition: fromBinary(AgentDefinitionSchema, row.definition),
    revision: row.revision,
    digest: row.digest,
    createdAt: timestampFromDate(row.created_at),
    updatedAt: timestampFromDate(row.updated_at),
  });
}
