import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** A span as a collector got it. */
export interface CollectedSpan {
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly service: string;
  readonly attributes: Readonly<Record<string, unknown>>;
  /** Spans of other traces that it has to do with. */
  readonly links: readonly { readonly traceId: string; readonly spanId: string }[];
}

/** A collector that speaks OTLP over HTTP with JSON and keeps what it gets. */
export interface TraceCollector {
  readonly url: string;
  readonly spans: readonly CollectedSpan[];
  /** Resolves when the spans satisfy a condition; asked after each batch. */
  until(isEnough: (spans: readonly CollectedSpan[]) => boolean, timeoutMs: number): Promise<void>;
  close(): Promise<void>;
}

interface OtlpValue {
  readonly stringValue?: string;
  readonly intValue?: string | number;
  readonly boolValue?: boolean;
}
interface OtlpAttribute {
  readonly key: string;
  readonly value: OtlpValue;
}
interface OtlpRequest {
  readonly resourceSpans?: readonly {
    readonly resource?: { readonly attributes?: readonly OtlpAttribute[] };
    readonly scopeSpans?: readonly {
      readonly spans?: readonly {
        readonly name: string;
        readonly traceId: string;
        readonly spanId: string;
        readonly parentSpanId?: string;
        readonly attributes?: readonly OtlpAttribute[];
        readonly links?: readonly { readonly traceId: string; readonly spanId: string }[];
      }[];
    }[];
  }[];
}

/** Starts a collector on a free port. */
export async function startTraceCollector(): Promise<TraceCollector> {
  const spans: CollectedSpan[] = [];
  const waiting = new Set<() => void>();
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      spans.push(...toSpans(JSON.parse(Buffer.concat(chunks).toString()) as OtlpRequest));
      response.setHeader("content-type", "application/json").end("{}");
      for (const wake of waiting) wake();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    until: (isEnough, timeoutMs) =>
      new Promise((resolve, reject) => {
        const check = (): void => {
          if (!isEnough(spans)) return;
          clearTimeout(timer);
          waiting.delete(check);
          resolve();
        };
        const timer = setTimeout(() => {
          waiting.delete(check);
          reject(
            new Error(
              `the spans did not come; the last are: ${spans
                .slice(-60)
                .map(
                  (span) =>
                    `${span.name} ${span.attributes["cadre.host"] ?? ""} ${span.traceId.slice(0, 4)} ${span.parentSpanId.slice(0, 4)}>${span.spanId.slice(0, 4)}`,
                )
                .join("\n")}`,
            ),
          );
        }, timeoutMs);
        waiting.add(check);
        check();
      }),
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

function toSpans(request: OtlpRequest): CollectedSpan[] {
  return (request.resourceSpans ?? []).flatMap(({ resource, scopeSpans }) => {
    const service = String(toAttributes(resource?.attributes)["service.name"] ?? "");
    return (scopeSpans ?? [])
      .flatMap(({ spans }) => spans ?? [])
      .map((span) => ({
        name: span.name,
        traceId: span.traceId,
        spanId: span.spanId,
        parentSpanId: span.parentSpanId ?? "",
        service,
        attributes: toAttributes(span.attributes),
        links: (span.links ?? []).map(({ traceId, spanId }) => ({ traceId, spanId })),
      }));
  });
}

function toAttributes(attributes: readonly OtlpAttribute[] = []): Record<string, unknown> {
  return Object.fromEntries(
    attributes.map(({ key, value }) => [key, value.stringValue ?? value.intValue ?? value.boolValue]),
  );
}
