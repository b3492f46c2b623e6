import { AsyncLocalStorage } from "node:async_hooks";
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { type PinnedTool, ToolExecutionService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { type Client, createClient, type Interceptor } from "@connectrpc/connect";
import pg from "pg";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../test/support/postgres.ts";
import { principalOf } from "../../test/support/tools-replicas.ts";
import { parseSettings } from "../runtime/config/settings.ts";
import { newId } from "../runtime/ids/id.ts";
import { errors } from "../runtime/interceptor/errors.ts";
import { createMemoryMesh } from "../runtime/memory/memory-mesh.ts";
import { createPageTokens } from "../runtime/page/page-token.ts";
import type { Database } from "../runtime/postgres/database.ts";
import { migrate } from "../runtime/postgres/migrator.ts";
import { openDatabase } from "../runtime/postgres/open-database.ts";
import { requestContextKey } from "../runtime/rpc/request-context.ts";
import { toolsSettings } from "./config.ts";
import { createTools, type Tools } from "./create-tools.ts";
import { migrations } from "./store/migrations/index.ts";
import type { ToolsSchema } from "./store/schema.ts";

// What a call of a tool asks of PostgreSQL: every statement that is sent from
// within the call is counted, wherever in the service it comes from.

const log = pino({ level: "silent" });
const principal = principalOf(newId("org"));
const counted = new AsyncLocalStorage<{ statements: number }>();
const { query } = pg.Client.prototype;

let testDatabase: TestDatabase;
let database: Database<ToolsSchema>;
let tools: Tools;
let client: Client<typeof ToolExecutionService>;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  await migrate({ url: testDatabase.url, service: "tools", migrations, log });
  database = openDatabase<ToolsSchema>({ url: testDatabase.url, service: "tools", log });
  tools = await createTools({
    config: parseSettings(toolsSettings, { CADRE_TOOLS_WORKER_WAIT_MS: "0" }),
    database,
    principals: { assertMayAct: async () => undefined, onChange: () => () => undefined },
    limits: { get: () => 10 },
    denials: { record: async () => undefined, flush: async () => undefined, stop: async () => undefined },
    pages: createPageTokens(new Uint8Array(32)),
    log,
    replicaId: "replica",
  });
  const mesh = createMemoryMesh();
  await mesh.serve("tools", { implementations: tools.implementations, interceptors: [as(principal), errors(log)] });
  client = createClient(ToolExecutionService, mesh.transport("tools", []));
  pg.Client.prototype.query = function counting(this: pg.Client, ...args: unknown[]): unknown {
    const count = counted.getStore();
    if (count !== undefined) count.statements += 1;
    return Reflect.apply(query, this, args);
  } as typeof query;
});
afterAll(async () => {
  pg.Client.prototype.query = query;
  await tools.stop();
  await database.close();
  await testDatabase.drop();
});

function as(who: Principal): Interceptor {
  return (next) => (request) => {
    request.contextValues.set(requestContextKey, {
      requestId: newId("req"),
      traceparent: "",
      source: "test",
      deadline: Number.POSITIVE_INFINITY,
      signal: request.signal,
      principal: who,
      callingService: "orchestrator",
      idempotencyKey: "",
    });
    return next(request);
  };
}

function callOf({ toolId, digest }: Pick<PinnedTool, "toolId" | "digest">, args: Record<string, string>) {
  const stepId = newId("stp");
  const call = { toolId, digest, arguments: args, idempotencyKey: stepId, epoch: 1n };
  return { ...call, runId: newId("run"), stepId, attempt: 1 };
}

/** How many statements are sent while `work` runs. */
async function statementsOf(work: () => Promise<unknown>): Promise<number> {
  const count = { statements: 0 };
  await counted.run(count, work);
  return count.statements;
}

const calls: readonly [string, Record<string, string>][] = [
  ["echo", { text: "hello" }],
  ["calculator", { expression: "6 * 7" }],
  ["clock", {}],
];

test.each(calls)("%s is resolved and called without one statement, both ways", async (name, args) => {
  let pinned: PinnedTool | undefined;
  expect(
    await statementsOf(async () => {
      ({
        tools: [pinned],
      } = await client.resolveTools({ names: [name] }));
    }),
  ).toBe(0);
  expect(pinned).toMatchObject({ silent: true, definition: { name } });
  const tool = pinned as PinnedTool;
  const outcomes: unknown[] = [];
  const told = ({ case: kind, value }: { case: string | undefined; value?: unknown }) =>
    kind === "error" ? value : kind;
  const statements = await statementsOf(async () => {
    for (let call = 0; call < 20; call++) {
      for await (const { part } of client.executeTool(callOf(tool, args))) outcomes.push(told(part));
      const { outcome } = await client.executeToolUnary({ call: callOf(tool, args) });
      outcomes.push(told(outcome));
    }
  });
  expect(outcomes).toEqual(Array.from({ length: 20 }, () => ["started", "result", "result"]).flat());
  expect(statements).toBe(0);
});

test("a tool that workers serve is recorded: the counter counts", async () => {
  const unknown = { toolId: newId("tool"), digest: `sha256:${"0".repeat(64)}` };
  const statements = await statementsOf(async () => {
    await expect(client.executeToolUnary({ call: callOf(unknown, {}) })).rejects.toThrow("no such tool");
  });
  expect(statements).toBeGreaterThan(0);
});
