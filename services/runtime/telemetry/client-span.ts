import { ConnectError, type Interceptor } from "@connectrpc/connect";
import { context, SpanKind, SpanStatusCode, type Tracer, trace } from "@opentelemetry/api";
import { observeStream, type StreamEnd } from "../rpc/message-stream.ts";
import { requestContextKey } from "../rpc/request-context.ts";
import { isSampled, parseTraceparent, toTraceparent } from "./traceparent.ts";

/**
 * A span around each call to a peer, beneath the span that makes it; its
 * context goes along as `traceparent`. Where nothing is recorded, and in the
 * background, where no request is behind the call, it passes untouched.
 */
export function clientSpan(tracer: Tracer): Interceptor {
  return (next) => async (request) => {
    const active = context.active();
    const caller = request.contextValues.get(requestContextKey);
    const remote = trace.getSpan(active) === undefined ? parseTraceparent(caller?.traceparent ?? "") : undefined;
    if (remote !== undefined && !isSampled(remote)) return next(request);
    const parent = remote === undefined ? active : trace.setSpanContext(active, remote);
    if (trace.getSpan(parent) === undefined) return next(request);
    const name = `${request.service.typeName}/${request.method.name}`;
    const span = tracer.startSpan(name, { kind: SpanKind.CLIENT }, parent);
    if (!span.isRecording()) return next(request);
    request.header.set("traceparent", toTraceparent(span.spanContext()));
    const ended = (end: StreamEnd): void => {
      if (end !== undefined) {
        const message = end.thrown instanceof ConnectError ? end.thrown.rawMessage : "failed";
        span.setStatus({ code: SpanStatusCode.ERROR, message });
      }
      span.end();
    };
    try {
      const response = await next(request);
      if (response.stream) return { ...response, message: observeStream(response.message, { ended }) };
      ended(undefined);
      return response;
    } catch (thrown) {
      ended({ thrown });
      throw thrown;
    }
  };
}
