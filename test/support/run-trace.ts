import { randomBytes } from "node:crypto";
import { fromJson } from "@bufbuild/protobuf";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { createCadre } from "@cadre/sdk";
import { createNoopMeter } from "@opentelemetry/api";
import { type ReadableSpan, SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import pino from "pino";
import { expect, onTestFinished } from "vitest";
import { consumeRepeatable } from "../../services/runtime/bus/consumer/consume-repeatable.ts";
import { envelopeHeader } from "../../services/runtime/bus/envelope.ts";
import type { EventBus, ReceivedEvent } from "../../services/runtime/bus/event-bus.ts";
import { agentRunsRequested, agentTools } from "../../services/runtime/bus/topics.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { parseTraceparent } from "../../services/runtime/telemetry/traceparent.ts";
import { startCadre } from "./cadre.ts";
import { followRuns, requestEvent } from "./run-requests.ts";
import { until } from "./settled.ts";
import { type CollectedSpan, startTraceCollector } from "./trace-collector.ts";
import { codec } from "./turn-facts.ts";

const log = pino({ level: "silent" });
const startRun = "cadre.orchestrator.v1.RunService/StartRun";
const executeTool = "cadre.tools.v1.ToolExecutionService/ExecuteToolUnary";
const graph = fromJson(GraphSchema, {
  name: "say",
  steps: [{ name: "say", tool: { tool: "echo", arguments: { text: "hello" } } }],
});

/**
 * Shows one trace from whoever asks for a run, by RPC or through the bus, over
 * its journal, its steps and tools, to whoever handles its facts.
 *
 * @param settings of the server, which states its steps on the bus
 * @param openBus the same bus, for who follows it from outside
 */
export async function expectRunTraces(
  settings: Readonly<Record<string, string>>,
  openBus: () => Promise<EventBus>,
): Promise<void> {
  const collector = await startTraceCollector();
  onTestFinished(() => collector.close());
  const server = await startCadre({ settings: { ...settings, CADRE_OTLP_ENDPOINT: collector.url } });
  onTestFinished(() => server.dispose());
  const cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const bus = await openBus();
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
}
