import { type QueryExecutorProvider, sql } from "kysely";
import { AppError } from "../../runtime/errors/app-error.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import type { Definition } from "../domain/definition.ts";
import { limitExceeded, type RegistrationLimits } from "../domain/limit.ts";
import type { ToolsSchema } from "./schema.ts";
import type { DigestedDefinition, StoredTool, ToolStore } from "./tool-store.ts";

interface ToolRow {
  readonly tool_id: string;
  readonly name: string;
  readonly digest: string;
  readonly definition: Definition;
  readonly workers: bigint;
  readonly created_at: Date;
  readonly updated_at: Date;
}

/** Columns of a tool with its definition and how many workers take calls of it. */
const selectTool = sql`
  select t.tool_id, t.name, t.digest, d.definition, t.created_at, t.updated_at,
    (select count(*) from worker_tool wt join worker w using (worker_id)
      where wt.tool_id = t.tool_id and wt.digest = t.digest
        and w.stream_id is not null and not w.draining and w.lease_until > clock_timestamp()) as workers
    from tool t join tool_definition d on d.tool_id = t.tool_id and d.digest = t.digest`;

/** The tools of orgs in PostgreSQL. */
export class PostgresToolStore implements ToolStore {
  readonly #database: Database<ToolsSchema>;

  constructor(database: Database<ToolsSchema>) {
    this.#database = database;
  }

  async register(orgId: string, definition: DigestedDefinition, limits: RegistrationLimits): Promise<StoredTool> {
    return this.#database.asOrg(orgId, async (transaction) => {
      const options = { mayAdd: true, inForce: true, limits };
      const { toolId } = await registerDefinition(transaction, orgId, definition, options);
      const { rows } = await sql<ToolRow>`${selectTool} where t.tool_id = ${toolId}`.execute(transaction);
      const [row] = rows;
      if (row === undefined) throw new Error("a registered tool is not there");
      return toStoredTool(row);
    });
  }

  async list(orgId: string, afterName: string, limit: number): Promise<readonly StoredTool[]> {
    return this.#database.asOrg(orgId, async (transaction) => {
      // By bytes, as the built-in tools are sorted in between.
      const { rows } = await sql<ToolRow>`${selectTool} where t.name collate "C" > ${afterName}
        order by t.name collate "C" limit ${limit}`.execute(transaction);
      return rows.map(toStoredTool);
    });
  }

  async get(orgId: string, toolId: string): Promise<StoredTool | undefined> {
    return this.#database.asOrg(orgId, async (transaction) => {
      const { rows } = await sql<ToolRow>`${selectTool} where t.tool_id = ${toolId}`.execute(transaction);
      return rows.map(toStoredTool)[0];
    });
  }

  async find(orgId: string, names: readonly string[] | "all", limit: number): Promise<readonly StoredTool[]> {
    return this.#database.asOrg(orgId, async (transaction) => {
      const filter = names === "all" ? sql`true` : sql`t.name = any(${[...names]}::text[])`;
      const { rows } = await sql<ToolRow>`${selectTool} where ${filter}
        order by t.name collate "C" limit ${limit}`.execute(transaction);
      return rows.map(toStoredTool);
    });
  }

  async definition(orgId: string, toolId: string, digest: string): Promise<Definition | undefined> {
    return this.#database.asOrg(orgId, async (transaction) => {
      const row = await transaction
        .selectFrom("tool_definition")
        .select("definition")
        .where("tool_id", "=", toolId)
        .where("digest", "=", digest)
        .executeTakeFirst();
      return row === undefined ? undefined : normalized(row.definition);
    });
  }
}

/** What `registerDefinition` may do. */
export interface RegisterOptions {
  /** Whether a definition may be added that the org does not have. */
  readonly mayAdd: boolean;
  /** Whether a known definition becomes the one in force; a new one always does. */
  readonly inForce: boolean;
  readonly limits: RegistrationLimits;
}

/**
 * Registers a definition within a transaction of the org's role.
 *
 * @throws AppError SCOPE_MISSING if it is new and may not be added; LIMIT_EXCEEDED
 */
export async function registerDefinition(
  transaction: QueryExecutorProvider,
  orgId: string,
  { definition, digest }: DigestedDefinition,
  options: RegisterOptions,
): Promise<{ readonly toolId: string }> {
  const { name } = definition;
  const { rows: known } = await sql<{ tool_id: string; is_known: boolean }>`
    select t.tool_id, exists (select from tool_definition d where d.tool_id = t.tool_id and d.digest = ${digest}) as is_known
      from tool t where t.name = ${name}`.execute(transaction);
  const isNew = known[0]?.is_known !== true;
  if (isNew && !options.mayAdd) {
    throw new AppError("SCOPE_MISSING", "registering a new definition of a tool needs the scope tools.write", {
      metadata: { scope: "tools.write", tool: name },
    });
  }
  if (isNew) await assertRoom(transaction, orgId, known[0]?.tool_id, options.limits);
  // The row's lock puts registrations of one name in an order.
  const { rows } = await sql<{ tool_id: string }>`
    insert into tool (tool_id, org_id, name, digest) values (${toUuid("tool", newId("tool"))}, ${orgId}, ${name}, ${digest})
    on conflict (org_id, name) do update set
      digest = case when ${isNew || options.inForce} then excluded.digest else tool.digest end,
      updated_at = case when ${isNew || options.inForce} and tool.digest <> excluded.digest
                        then clock_timestamp() else tool.updated_at end
    returning tool_id`.execute(transaction);
  const toolId = rows[0]?.tool_id;
  if (toolId === undefined) throw new Error("a tool was neither made nor found");
  await sql`
    insert into tool_definition (tool_id, org_id, digest, definition)
    values (${toolId}, ${orgId}, ${digest}, ${JSON.stringify(definition)})
    on conflict (tool_id, digest) do nothing`.execute(transaction);
  return { toolId };
}

async function assertRoom(
  transaction: QueryExecutorProvider,
  orgId: string,
  toolId: string | undefined,
  limits: RegistrationLimits,
): Promise<void> {
  const { rows } = await sql<{ count: bigint }>`
    select ${toolId === undefined ? sql`count(*) from tool` : sql`count(*) from tool_definition where tool_id = ${toolId}`}`.execute(
    transaction,
  );
  const limit = toolId === undefined ? "tools" : "tool_definitions";
  if (Number(rows[0]?.count ?? 0n) >= limits[limit]) throw limitExceeded(orgId, limit, limits[limit]);
}

function toStoredTool(row: ToolRow): StoredTool {
  return {
    toolId: row.tool_id,
    name: row.name,
    digest: row.digest,
    definition: normalized(row.definition),
    workers: Number(row.workers),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

/** JSON drops a member that is `undefined`. */
function normalized(definition: Definition): Definition {
  return { ...definition, outputSchema: definition.outputSchema ?? undefined };
}
