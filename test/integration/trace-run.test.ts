import { randomBytes } from "node:crypto";
import { fromJson } from "@bufbuild/protobuf";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { createCadre } from "@cadre/sdk";
import { createNoopMeter } from "@opentelemetry/api";
import { type ReadableSpan, SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import pino from "pino";
import { expect, onTestFinished, test } from "vitest";
import { consumeRepeatable } from "../../services/runtime/bus/consumer/consume-repeatable.ts";
import { envelopeHeader } from "../../services/runtime/bus/envelope.ts";
import type { ReceivedEvent } from "../../services/runtime/bus/event-bus.ts";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { agentRunsRequested, agentTools } from "../../services/runtime/bus/topics.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { parseTraceparent } from "../../services/runtime/telemetry/traceparent.ts";
import { startCadre } from "../support/cadre.ts";
import { createTestDatabase } from "../support/postgres.ts";
import { followRuns, requestEvent } from "../support/run-requests.ts";
import { until } from "../support/settled.ts";
import { type CollectedSpan, startTraceCollector } from "../support/trace-collector.ts";
import { codec } from "../support/turn-facts.ts";

// One trace from whoever asks for a run, by RPC or through the bus, over its
// journal, its steps and tools, to whoever handles its facts.

const log = pino({ level: "silent" });
const startRun = "cadre.orchestrator.v1.RunService/StartRun";
const executeTool = "cadre.tools.v1.ToolExecutionService/ExecuteToolUnary";
const graph = fromJson(GraphSchema, {
  name: "say",
  steps: [{ name: "say", tool: { tool: "echo", arguments: { text: "hello" } } }],
});

test("a run is one trace over RPC or bus, journal, steps, tools, facts and their handlers", async () => {
  const collector = await startTraceCollector();
  onTestFinished(() => collector.close());
  const database = await createTestDatabase();
  onTestFinished(() => database.drop());
  const settings = { CADRE_OTLP_ENDPOINT: collector.url, CADRE_DATABASE_URL: database.url, CADRE_STEP_FACTS: "true" };
  const server = await startCadre({ settings });
  onTestFinished(() => server.dispose());
  const cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const bus = await openPostgresEventBus({ url: database.url, log });
  onTestFinished(() => bus.close());

  // A service of somebody's that follows the tools, with a tracer of its own.
  const handled: ReadableSpan[] = [];
  const exporter = {
    export: (spans: readonly ReadableSpan[], done: (result: { code: number }) => void) => {
      handled.push(...spans);
      done({ code: 0 });
    },
    shutdown: async () => undefined,
  };
  const tracing = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] });
  onTestFinished(() => tracing.shutdown());
  const events: ReceivedEvent[] = [];
  const meter = createNoopMeter();
  const following = {
    bus,
    codec,
    topic: agentTools,
    group: "test.tools",
    log,
    tracer: tracing.getTracer("test"),
    meter,
  };
  consumeRepeatable({ ...following, handle: async ({ event }) => void events.push(event) });
  const runs = followRuns(bus, "test.runs");

  /** What holds of a trace, whoever began it. */
  async function expectOneTrace(traceId: string, runId: string): Promise<readonly CollectedSpan[]> {
    const inTrace = () => collector.spans.filter((span) => span.traceId === traceId);
    const stepOf = () => inTrace().find(({ name }) => name === "cadre.step.tool");
    const toolOf = () =>
      inTrace().find(({ name, attributes }) => name === executeTool && attributes["cadre.host"] === "tools");
    await collector.until(() => stepOf() !== undefined && toolOf() !== undefined, 30_000);
    expect(stepOf()?.attributes).toMatchObject({ "cadre.run_id": runId, "cadre.step": "say" });
    const ids = new Map(inTrace().map((span) => [span.spanId, span]));
    const above: string[] = [];
    for (let span = toolOf(); span !== undefined; span = ids.get(span.parentSpanId)) above.push(span.spanId);
    expect(above).toContain(stepOf()?.spanId);

    const eventOf = () => events.find(({ key }) => key.endsWith(runId));
    await until(() => eventOf() !== undefined);
    const event = eventOf();
    const said = parseTraceparent(event?.headers[envelopeHeader.traceparent] ?? "");
    expect(said?.traceId).toBe(traceId);
    const eventId = event?.headers[envelopeHeader.eventId];
    const handling = () => handled.find(({ attributes }) => attributes["messaging.message.id"] === eventId);
    await until(() => handling() !== undefined);
    expect(handling()?.links.map(({ context }) => [context.traceId, context.spanId])).toEqual([
      [traceId, said?.spanId],
    ]);
    return inTrace();
  }

  const byCall = await cadre.runs.start({ graph });
  await byCall.result();
  const isCall = ({ name, attributes }: CollectedSpan) => name === startRun && attributes["cadre.host"] === "gateway";
  await collector.until((spans) => spans.some(isCall), 30_000);
  const root = collector.spans.find(isCall);
  const called = await expectOneTrace(root?.traceId ?? "", byCall.runId);
  expect(called.filter(({ parentSpanId }) => parentSpanId === "").map(({ name }) => name)).toEqual([startRun]);

  const asker = { traceId: randomBytes(16).toString("hex"), spanId: randomBytes(8).toString("hex") };
  const requestId = newId("req");
  const signed = await cadre.runs.signRequest({ graph });
  const traceparent = `00-${asker.traceId}-${asker.spanId}-01`;
  await bus.publish([await requestEvent({ ...signed, requestId, traceparent })]);
  const ended = await runs.ended(requestId);
  expect(ended.metadata?.traceId).toBe(asker.traceId);
  const requested = await expectOneTrace(asker.traceId, ended.runId);
  const step = requested.find(({ name }) => name === "cadre.step.tool");
  expect(step?.parentSpanId).toBe(asker.spanId);
  // Who starts it has a trace of its own, which leads to who asked.
  const isHandling = ({ name }: CollectedSpan) => name === `process ${agentRunsRequested.name}`;
  await collector.until((spans) => spans.some(isHandling), 30_000);
  expect(collector.spans.find(isHandling)?.links).toEqual([asker]);
}, 240_000);
