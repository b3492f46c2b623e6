import { context, type Link, type Meter, SpanKind, SpanStatusCode, type Tracer, trace } from "@opentelemetry/api";
import { toAppError } from "../../errors/failure.ts";
import { secondsBuckets } from "../../telemetry/telemetry.ts";
import { parseTraceparent } from "../../telemetry/traceparent.ts";
import { envelopeHeader } from "../envelope.ts";
import type { ReceivedEvent } from "../event-bus.ts";
import type { Consumer, Handler } from "./handler.ts";

/**
 * Measures each event: `cadre.consumer.events` by outcome, and
 * `cadre.consumer.duration` in seconds. Its span is a trace of its own, linked to
 * the producer's, as OpenTelemetry has it for messages that are handled later
 * (opentelemetry.io/docs/specs/semconv/messaging/messaging-spans).
 */
export function telemetry(
  { topic, group }: Consumer,
  deps: { readonly tracer: Tracer; readonly meter: Meter },
  next: Handler<ReceivedEvent>,
): Handler<ReceivedEvent> {
  const { tracer, meter } = deps;
  const events = meter.createCounter("cadre.consumer.events", { description: "Events by what became of them." });
  const duration = meter.createHistogram("cadre.consumer.duration", {
    description: "From an event's arrival at its handler to its end.",
    unit: "s",
    advice: { explicitBucketBoundaries: [...secondsBuckets] },
  });
  return async (event, signal) => {
    const startedMs = performance.now();
    const span = tracer.startSpan(`process ${topic}`, {
      kind: SpanKind.CONSUMER,
      root: true,
      links: linksOf(event),
      attributes: {
        "messaging.system": "cadre",
        "messaging.operation.type": "process",
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": String(event.partition),
        "messaging.consumer.group.name": group,
        "messaging.message.id": event.headers[envelopeHeader.eventId] ?? "",
      },
    });
    const end = (outcome: string) => {
      span.setAttribute("cadre.outcome", outcome);
      span.end();
      events.add(1, { topic, group, outcome });
      duration.record((performance.now() - startedMs) / 1_000, { topic, group });
    };
    try {
      const outcome = await context.with(trace.setSpan(context.active(), span), () => next(event, signal));
      end(outcome);
      return outcome;
    } catch (thrown) {
      span.setStatus({ code: SpanStatusCode.ERROR, message: toAppError(thrown).reason });
      end("refused");
      throw thrown;
    }
  };
}

/** The link to who stated an event; none if nobody traces it. */
export function linksOf(event: ReceivedEvent): Link[] {
  const producer = parseTraceparent(event.headers[envelopeHeader.traceparent] ?? "");
  return producer === undefined ? [] : [{ context: producer }];
}
