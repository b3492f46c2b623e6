import { createCadre } from "@cadre/sdk";
import { expect, onTestFinished, test } from "vitest";
import { startCadre, topologies } from "../support/cadre.ts";
import { type CollectedSpan, startTraceCollector } from "../support/trace-collector.ts";

const sendTurn = "cadre.orchestrator.v1.SessionService/SendTurn";
const executeTool = "cadre.tools.v1.ToolExecutionService/ExecuteTool";

test.each(topologies)(
  "%s: a turn with a tool is one trace over gateway, orchestrator, tools and SQL",
  async (topology) => {
    const collector = await startTraceCollector();
    onTestFinished(() => collector.close());
    const server = await startCadre({ topology, settings: { CADRE_OTLP_ENDPOINT: collector.url } });
    onTestFinished(() => server.dispose());
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
  },
  90_000,
);
