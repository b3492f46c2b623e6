import { type Run, RunState, type RunStep, reasonName, StepState, stepStateName } from "@cadre/sdk";
import { type Context, ROOT_CONTEXT, type Span, SpanStatusCode, trace } from "@opentelemetry/api";
import { ExportResultCode } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { AlwaysOnSampler, type ReadableSpan, TracerProvider } from "@opentelemetry/sdk-trace";
import { exitCode } from "./exit-code.ts";
import { CliError } from "./failure.ts";

/** How many spans a request to the collector carries. */
const batchSize = 512;

/**
 * Sends a run to an OpenTelemetry collector, as a trace of its own: a span for
 * the run, and below it one for each step, element and compensation, with the
 * times at which they were. What has not ended ends now.
 *
 * @param endpoint the collector, for example `http://127.0.0.1:4318`
 * @throws CliError 2 if that is no URL, 1 if the collector does not take it
 */
export async function exportRunTrace(run: Run, endpoint: string): Promise<{ spans: number; traceId: string }> {
  if (!URL.canParse(endpoint) || !/^https?:/.test(endpoint)) {
    throw new CliError(exitCode.usage, "--otlp must be an http or https URL", "For example: http://127.0.0.1:4318");
  }
  const spans: ReadableSpan[] = [];
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ "service.name": "cadre" }),
    sampler: new AlwaysOnSampler(),
    spanProcessors: [
      {
        onStart: () => undefined,
        onEnd: (span) => void spans.push(span),
        forceFlush: () => Promise.resolve(),
        shutdown: () => Promise.resolve(),
      },
    ],
  });
  const tracer = provider.getTracer("cadre runs trace");
  const now = new Date();

  const begin = (
    name: string,
    startedAt: Time | undefined,
    above: Context,
    attributes: Record<string, string | number>,
  ) => tracer.startSpan(name, { startTime: startedAt === undefined ? now : toDate(startedAt), attributes }, above);
  const addStep = (step: RunStep, label: string, above: Context): void => {
    // What was skipped took no time, and is no part of what happened.
    if (step.state === StepState.SKIPPED || step.startedAt === undefined) return;
    const span = begin(label, step.startedAt, above, {
      "cadre.step.id": step.stepId,
      "cadre.step.state": stepStateName(step.state),
      "cadre.step.attempt": step.attempt,
    });
    if (step.state === StepState.FAILED) fail(span, step.error);
    const below = trace.setSpan(above, span);
    for (const [index, item] of step.items.entries()) addStep(item, `${label}[${index}]`, below);
    span.end(step.endedAt === undefined ? now : toDate(step.endedAt));
    if (step.compensation !== undefined) addStep(step.compensation, `undo ${label}`, above);
  };

  const root = begin(run.name, run.createdAt, ROOT_CONTEXT, { "cadre.run.id": run.runId });
  if (run.state === RunState.FAILED) fail(root, run.error);
  const below = trace.setSpan(ROOT_CONTEXT, root);
  for (const step of run.steps) addStep(step, step.name, below);
  root.end(run.endedAt === undefined ? now : toDate(run.endedAt));

  const exporter = new OTLPTraceExporter({ url: new URL("/v1/traces", endpoint).href });
  try {
    for (let index = 0; index < spans.length; index += batchSize) {
      await send(exporter, spans.slice(index, index + batchSize));
    }
  } finally {
    await exporter.shutdown();
  }
  return { spans: spans.length, traceId: root.spanContext().traceId };
}

type Time = NonNullable<Run["createdAt"]>;

function toDate({ seconds, nanos }: Time): Date {
  return new Date(Number(seconds) * 1_000 + nanos / 1e6);
}

function fail(span: Span, error: Run["error"]): void {
  if (error === undefined) return;
  span.setStatus({ code: SpanStatusCode.ERROR, message: `${reasonName(error.reason)}: ${error.message}` });
}

function send(exporter: OTLPTraceExporter, spans: ReadableSpan[]): Promise<void> {
  return new Promise((resolve, reject) => {
    exporter.export(spans, ({ code, error }) => {
      if (code === ExportResultCode.SUCCESS) resolve();
      else {
        const why = error?.message ?? "it did not say why";
        reject(new CliError(exitCode.failed, `the collector did not take the trace: ${why}`, "Look at --otlp."));
      }
    });
  });
}
