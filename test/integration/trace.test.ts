import { createCadre } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { type CollectedSpan, startTraceCollector, type TraceCollector } from "../support/trace-collector.ts";

let collector: TraceCollector;
let server: RunningCadre;

beforeAll(async () => {
  collector = await startTraceCollector();
  server = await startCadre({ settings: { CADRE_OTLP_ENDPOINT: collector.url } });
});
afterAll(async () => {
  await server.dispose();
  await collector.close();
});

const sendTurn = "cadre.orchestrator.v1.SessionService/SendTurn";
const executeTool = "cadre.tools.v1.ToolExecutionService/ExecuteTool";

test("a turn with a tool is one trace over gateway, orchestrator, tools and SQL", async () => {
  const cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const session = await cadre.sessions.create();
  for await (const _ of session.stream("calculator: 6 * 7")) {
    // to its end
  }
  const traceOf = (spans: readonly CollectedSpan[]): readonly CollectedSpan[] => {
    const root = spans.find(({ name, attributes }) => name === sendTurn && attributes["cadre.host"] === "gateway");
    return root === undefined ? [] : spans.filter(({ traceId }) => traceId === root.traceId);
  };
  await collector.until(
    (spans) =>
      traceOf(spans).some(({ name, attributes }) => name === executeTool && attributes["cadre.host"] === "tools"),
    15_000,
  );
  // Parents end after their children: wait until no span of the trace lacks its parent.
  const complete = (spans: readonly CollectedSpan[]): boolean => {
    const trace = traceOf(spans);
    const ids = new Set(trace.map(({ spanId }) => spanId));
    return trace.every(({ parentSpanId }) => parentSpanId === "" || ids.has(parentSpanId));
  };
  await collector.until(complete, 15_000);

  const trace = traceOf(collector.spans);
  const byId = new Map(trace.map((span) => [span.spanId, span]));
  const hostsAbove = (span: CollectedSpan): string[] => {
    const hosts: string[] = [];
    for (let above: CollectedSpan | undefined = span; above !== undefined; above = byId.get(above.parentSpanId)) {
      const host = above.attributes["cadre.host"];
      if (typeof host === "string") hosts.unshift(host);
    }
    return hosts;
  };
  expect(trace.filter(({ parentSpanId }) => parentSpanId === "").map(({ name }) => name)).toEqual([sendTurn]);
  const tool = trace.find(({ name, attributes }) => name === executeTool && attributes["cadre.host"] === "tools");
  expect(tool && hostsAbove(tool)).toEqual(["gateway", "orchestrator", "tools"]);
  const sql = trace.filter(
    ({ attributes }) => attributes["db.system"] !== undefined || attributes["db.system.name"] !== undefined,
  );
  expect(new Set(sql.map((span) => hostsAbove(span).at(-1)))).toContain("orchestrator");
  for (const { attributes } of sql) expect(JSON.stringify(attributes)).not.toContain("6 * 7");
}, 60_000);
