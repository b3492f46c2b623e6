import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import {
  type Attributes,
  context,
  INVALID_SPAN_CONTEXT,
  type Meter,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from "@opentelemetry/api";
import { edgeRequestKey } from "../edge/edge-request.ts";
import { readToldRequest, type ToldRequest } from "../identity/told-request.ts";
import { newId } from "../ids/id.ts";
import type { Logger } from "../log/log.ts";
import { observeStream, type StreamEnd } from "../rpc/message-stream.ts";
import { type RequestContext, requestContextKey } from "../rpc/request-context.ts";
import { within } from "../telemetry/stream-context.ts";
import { secondsBuckets } from "../telemetry/telemetry.ts";
import { isSampled, newSpanContext, parseTraceparent, toTraceparent } from "../telemetry/traceparent.ts";

export interface TelemetryInterceptorOptions {
  /** The service that is called, for the metrics' labels. */
  readonly host: string;
  /** Where traces begin, and where a call's one log line is `info`. */
  readonly plane: "edge" | "mesh";
  readonly tracer: Tracer;
  readonly meter: Meter;
  readonly log: Logger;
}

/**
 * Makes the request's context, its span, its metrics and its one log line. The
 * outermost interceptor: what it measures is what the caller waited for.
 *
 * A stream's line is written at its end. At the edge lines are `info`; in the
 * mesh, where every call stems from one that was logged, `debug`.
 */
export function telemetry(options: TelemetryInterceptorOptions): Interceptor {
  const duration = options.meter.createHistogram("cadre_rpc_duration_seconds", {
    description: "Time to answer a call; of a stream, to its end",
    unit: "s",
    advice: { explicitBucketBoundaries: [...secondsBuckets] },
  });
  // Counted here and read when somebody asks: a record costs more than a call's
  // other accounts together.
  const methods = new Map<DescMethod, MethodAccount>();
  options.meter
    .createObservableUpDownCounter("cadre_rpc_running", { description: "Calls that are being answered" })
    .addCallback((result) => {
      for (const { running, labels } of methods.values()) result.observe(running, labels);
    });
  const accountOf = (method: DescMethod): MethodAccount => {
    let account = methods.get(method);
    if (account === undefined) {
      const labels = { service: method.parent.typeName, method: method.name, plane: options.plane };
      account = { running: 0, labels, byCode: new Map() };
      methods.set(method, account);
    }
    return account;
  };
  const level = options.plane === "edge" ? "info" : "debug";
  return (next) => async (request) => {
    const startedAt = performance.now();
    const { method, service, header } = request;
    const { requestId, source, traceparent } =
      request.contextValues.get(edgeRequestKey) ?? (options.plane === "mesh" ? readToldRequest(header) : nothingTold());
    const parent = parseTraceparent(traceparent);
    // Traces begin at the edge: what services do among themselves in the
    // background would drown them. What is not sampled there is recorded nowhere.
    const isTraced = parent === undefined ? options.plane === "edge" : isSampled(parent);
    const base = isTraced && parent !== undefined ? trace.setSpanContext(context.active(), parent) : context.active();
    const span = isTraced
      ? options.tracer.startSpan(
          `${service.typeName}/${method.name}`,
          {
            kind: SpanKind.SERVER,
            root: parent === undefined,
            attributes: {
              "rpc.system": "connect_rpc",
              "rpc.service": service.typeName,
              "rpc.method": method.name,
              "cadre.request_id": requestId,
              "cadre.host": options.host,
            },
          },
          base,
        )
      : trace.wrapSpanContext(INVALID_SPAN_CONTEXT);
    // Where nobody traces there is no id; the request gets one all the same,
    // which ties its log lines and events together over all hops.
    const spanContext = span.isRecording() ? span.spanContext() : (parent ?? newSpanContext());
    const requestScope: RequestContext = {
      requestId,
      // Where nothing is recorded the caller's own context goes on.
      traceparent: spanContext === parent ? traceparent : toTraceparent(spanContext),
      source,
      deadline: Number.POSITIVE_INFINITY,
      signal: request.signal,
      principal: undefined,
      callingService: undefined,
      idempotencyKey: "",
    };
    request.contextValues.set(requestContextKey, requestScope);
    const account = accountOf(method);
    account.running += 1;
    const finish = (failure: StreamEnd): void => {
      const code = failure === undefined ? "ok" : codeName(failure.thrown);
      const seconds = (performance.now() - startedAt) / 1_000;
      account.running -= 1;
      duration.record(seconds, labelsOf(account, code));
      if (failure !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: code });
      span.setAttribute("rpc.connect_rpc.status_code", code);
      span.end();
      if (!options.log.isLevelEnabled(level)) return;
      options.log[level](
        {
          rpc: `${service.typeName}/${method.name}`,
          code,
          duration_ms: Math.round(seconds * 1e6) / 1e3,
          request_id: requestId,
          trace_id: spanContext.traceId,
          org_id: requestScope.principal?.orgId,
          subject: requestScope.principal?.subject,
          source: requestScope.callingService ?? requestScope.source,
        },
        "request",
      );
    };
    const scope = span.isRecording() ? trace.setSpan(base, span) : undefined;
    try {
      const response = await (scope === undefined ? next(request) : context.with(scope, () => next(request)));
      // A peer gave the id itself; a stranger learns it here.
      if (options.plane === "edge") response.header.set("x-request-id", requestId);
      if (!response.stream) {
        finish(undefined);
        return response;
      }
      const messages = scope === undefined ? response.message : within(scope, response.message);
      return { ...response, message: observeStream(messages, { ended: finish }) };
    } catch (thrown) {
      if (thrown instanceof ConnectError) thrown.metadata.set("x-request-id", requestId);
      finish({ thrown });
      throw thrown;
    }
  };
}

function nothingTold(): ToldRequest {
  return { requestId: newId("req"), source: "", traceparent: "" };
}

/** What is counted of a method, and the labels that its records go under. */
interface MethodAccount {
  running: number;
  readonly labels: Attributes;
  readonly byCode: Map<string, Attributes>;
}

function labelsOf({ labels, byCode }: MethodAccount, code: string): Attributes {
  let labelled = byCode.get(code);
  if (labelled === undefined) {
    labelled = { ...labels, code };
    byCode.set(code, labelled);
  }
  return labelled;
}

function codeName(thrown: unknown): string {
  const code = thrown instanceof ConnectError ? thrown.code : Code.Unknown;
  return codeToString(code);
}
