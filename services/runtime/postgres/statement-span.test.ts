import { context, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import { sql } from "kysely";
import pino from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { migrate } from "./migrator.ts";
import { openDatabase } from "./open-database.ts";
import { describeStatement } from "./statement-span.ts";

describe("a statement's name is its first word and its table", () => {
  test.each([
    ["select * from session where id = $1", "select session"],
    ['select "a" from "session" as "s"', "select session"],
    ["insert into orchestrator.entry values ($1)", "insert orchestrator.entry"],
    ["update only run set head = $1", "update run"],
    ["delete from run", "delete run"],
    ["select append($1, $2)", "select append"],
    ["select * from join_group($1)", "select join_group"],
    ["with x as (select 1 from run) select * from x", "select run"],
    ["begin; select set_config('app.org', '00000000-0000-7000-8000-000000000001', true)", "begin"],
    ["commit", "commit"],
    ["select 1", "select"],
  ])("%s", (text, name) => {
    expect(describeStatement(text).name).toBe(name);
  });
});

describe("with tracing on", () => {
  const exporter = new InMemorySpanExporter();
  const provider = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] });
  const tracer = provider.getTracer("test");
  const log = pino({ level: "silent" });
  let database: TestDatabase;

  beforeAll(async () => {
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    database = await createTestDatabase();
    await migrate({ url: database.url, service: "sample", migrations: [], log });
  });
  afterAll(async () => {
    context.disable();
    await database.drop();
  });

  test("each statement of a traced call is a child span, without values", async () => {
    const db = openDatabase<Record<never, never>>({ url: database.url, service: "sample", log, tracer });
    // Outside of a trace nothing is recorded.
    await sql`select ${"hidden value"}`.execute(db.engine);
    expect(exporter.getFinishedSpans()).toEqual([]);

    await tracer.startActiveSpan("parent", async (parent) => {
      await sql`select ${"hidden value"} as a from pg_class limit 1`.execute(db.engine);
      await sql`select * from missing where a = ${"hidden value"}`.execute(db.engine).catch(() => undefined);
      await db.asOrg("00000000-0000-7000-8000-000000000001", (transaction) => sql`select 1`.execute(transaction));
      parent.end();
    });
    await db.close();
    const spans = exporter.getFinishedSpans();
    const parent = spans.find(({ name }) => name === "parent");
    const statements = spans.filter(({ name }) => name !== "parent");
    expect(statements.map(({ name }) => name).sort()).toEqual(
      ["begin", "commit", "select", "select missing", "select pg_class"].sort(),
    );
    for (const span of statements) {
      expect(span.parentSpanContext?.spanId).toBe(parent?.spanContext().spanId);
      expect(span.attributes["db.system"]).toBe("postgresql");
    }
    expect(statements.find(({ name }) => name === "select missing")?.attributes["db.response.status_code"]).toBe(
      "42P01",
    );
    expect(
      JSON.stringify(spans.map(({ name, attributes, status, events }) => ({ name, attributes, status, events }))),
    ).not.toContain("hidden value");
    expect(trace.getActiveSpan()).toBeUndefined();
  });
});
