import { type Attributes, ROOT_CONTEXT, SpanStatusCode, type Tracer, trace } from "@opentelemetry/api";
import { parseTraceparent } from "../../runtime/telemetry/traceparent.ts";

/** Does work within a span. What it throws marks the span as failed, and goes on. */
export function traced<T>(tracer: Tracer, name: string, attributes: Attributes, work: () => Promise<T>): Promise<T> {
  return tracer.startActiveSpan(name, { attributes }, (span) =>
    work()
      .catch((error: unknown) => {
        // Not the message: it may quote what a user or a model wrote.
        span.setStatus({ code: SpanStatusCode.ERROR });
        throw error;
      })
      .finally(() => span.end()),
  );
}

/**
 * The same, as a part of the trace that the request began which sent the turn:
 * whoever runs it, and however long after.
 *
 * @param traceparent empty for none
 */
export function tracedFrom<T>(
  tracer: Tracer,
  traceparent: string,
  name: string,
  attributes: Attributes,
  work: () => Promise<T>,
): Promise<T> {
  const parent = parseTraceparent(traceparent);
  const context = parent === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, parent);
  return tracer.startActiveSpan(name, { attributes }, context, (span) => work().finally(() => span.end()));
}
