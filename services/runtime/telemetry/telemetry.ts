import { context, type Meter, metrics, propagation, type Tracer, trace } from "@opentelemetry/api";
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { MeterProvider } from "@opentelemetry/sdk-metrics";

/** The process's tracer and meter, and what must be flushed at its end. */
export interface Telemetry {
  readonly tracer: Tracer;
  readonly meter: Meter;
  /** The process's metrics in the Prometheus text format. */
  renderMetrics(): Promise<string>;
  /** Sends what is pending, for at most two seconds. */
  stop(): Promise<void>;
}

export interface TelemetryOptions {
  /** What runs in the process, for example `cadre` or `orchestrator`. */
  readonly serviceName: string;
  readonly version: string;
  /** Unique for each start of the process. */
  readonly processId: string;
  /** Where traces go by OTLP over HTTP, for example `http://127.0.0.1:4318`; none: no spans are made. */
  readonly otlpEndpoint: string | undefined;
  /** The share of requests that are traced, 0 to 1, unless their caller decided. */
  readonly sampleRatio: number;
}

/** A histogram of seconds needs bounds; the library's default suits milliseconds. */
export const secondsBuckets: readonly number[] = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
];

/**
 * Starts metrics, and traces when an endpoint is given. Registers the global
 * providers once a process, so that libraries join in.
 */
export async function startTelemetry(options: TelemetryOptions): Promise<Telemetry> {
  const resource = resourceFromAttributes({
    "service.name": options.serviceName,
    "service.version": options.version,
    "service.instance.id": options.processId,
  });
  const exporter = new PrometheusExporter({ preventServerStart: true });
  const meterProvider = new MeterProvider({ resource, readers: [exporter] });
  metrics.setGlobalMeterProvider(meterProvider);
  const stopTraces = options.otlpEndpoint === undefined ? undefined : await startTraces(options, options.otlpEndpoint);
  const serializer = new PrometheusSerializer();
  return {
    tracer: trace.getTracer("cadre", options.version),
    meter: metrics.getMeter("cadre", options.version),
    async renderMetrics() {
      const { resourceMetrics, errors } = await exporter.collect();
      if (errors.length > 0) throw new AggregateError(errors, "a metric could not be read");
      return serializer.serialize(resourceMetrics);
    },
    async stop() {
      await Promise.race([
        Promise.allSettled([stopTraces?.(), meterProvider.shutdown()]),
        new Promise((resolve) => setTimeout(resolve, 2_000).unref()),
      ]);
    },
  };
}

/** Tracing is loaded only where it is asked for: it costs start time and memory. */
async function startTraces(options: TelemetryOptions, endpoint: string): Promise<() => Promise<void>> {
  const [sdk, otlp, hooks, core] = await Promise.all([
    import("@opentelemetry/sdk-trace"),
    import("@opentelemetry/exporter-trace-otlp-http"),
    import("@opentelemetry/context-async-hooks"),
    import("@opentelemetry/core"),
  ]);
  const provider = new sdk.TracerProvider({
    resource: resourceFromAttributes({
      "service.name": options.serviceName,
      "service.version": options.version,
      "service.instance.id": options.processId,
    }),
    sampler: new sdk.ParentBasedSampler({ root: new sdk.TraceIdRatioBasedSampler(options.sampleRatio) }),
    spanLimits: { attributeValueLengthLimit: 1024 },
    spanProcessors: [
      new sdk.BatchSpanProcessor({
        exporter: new otlp.OTLPTraceExporter({ url: new URL("/v1/traces", endpoint).href }),
        // Bounds what a collector that is down can cost: about 1 KiB a span.
        maxQueueSize: 8_192,
        maxExportBatchSize: 512,
        scheduledDelayMillis: 1_000,
      }),
    ],
  });
  trace.setGlobalTracerProvider(provider);
  context.setGlobalContextManager(new hooks.AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new core.W3CTraceContextPropagator());
  return () => provider.shutdown();
}
