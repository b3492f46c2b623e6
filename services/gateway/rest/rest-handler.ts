import type { DescMessage, JsonValue, Message } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ContextValues,
  createContextValues,
  type StreamResponse,
  type Transport,
} from "@connectrpc/connect";
import { type ByteBudget, type ByteLease, byteLeaseKey } from "../../runtime/edge/byte-budget.ts";
import { type EdgeLimits, edgeLimits, messageLimits } from "../../runtime/edge/edge-limits.ts";
import { type EdgeIncoming, type EdgeResponse, edgeRequest, edgeRequestKey } from "../../runtime/edge/edge-request.ts";
import { toErrorAnswer } from "../../runtime/edge/error-body.ts";
import { answerTooLarge } from "../../runtime/edge/message-size.ts";
import type { OnRefused, RefusedCall } from "../../runtime/edge/refused-call.ts";
import { assertMetadata } from "../../runtime/edge/request-metadata.ts";
import { createResponseWriter, type ResponseWriter } from "../../runtime/edge/response-writer.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toAppError } from "../../runtime/errors/failure.ts";
import { isServerStreaming, isUnary } from "../contract/method-kind.ts";
import { answerEmpty, answerError, answerWhole, jsonType, setHead } from "./answer.ts";
import { bindRequest } from "./bind-request.ts";
import { HttpError } from "./http-error.ts";
import { hasBody, readJson } from "./read-body.ts";
import { toHeaders } from "./request-header.ts";
import type { EventFields, Route } from "./route.ts";
import type { RouteMatch, Router } from "./router.ts";
import { type StreamFormat, streamFormat, toRestJson } from "./stream-answer.ts";

/** What the REST handler needs. */
export interface RestOptions {
  readonly router: Router;
  /** Calls the methods, through the same interceptors as any other protocol. */
  readonly transport: Transport;
  /** What bodies are held in, shared with the other protocols. */
  readonly budget: ByteBudget;
  /** Told of calls that are refused outside of the interceptors. */
  readonly onRefused: OnRefused;
  /** How slow a reader may be; the edge's defaults if left out. */
  readonly limits?: Pick<EdgeLimits, "maxBufferedBytes" | "stallTimeoutMs">;
  /** After how much silence a comment line is written to an event stream. Default 15 s. */
  readonly keepaliveMs?: number;
  /**
   * How long the first message of a stream is waited for before the status is
   * sent, so that a refusal is one in HTTP, too. Default 1 s.
   */
  readonly firstMessageMs?: number;
}

/** Answers requests by the routes of the contract. Never rejects. */
export type RestHandler = (request: EdgeIncoming, response: EdgeResponse) => Promise<void>;

/**
 * Answers plain HTTP: finds the route, binds the request, calls the method,
 * and writes Protobuf JSON with the contract's field names.
 */
export function createRestHandler({
  router,
  transport,
  budget,
  onRefused,
  limits = edgeLimits,
  ...times
}: RestOptions): RestHandler {
  const keepaliveMs = times.keepaliveMs ?? 15_000;
  const firstMessageMs = times.firstMessageMs ?? 1_000;

  async function answer(request: EdgeIncoming, response: EdgeResponse): Promise<void> {
    const [path = "", query = ""] = splitOnce(request.url ?? "", "?");
    const httpMethod = request.method ?? "";
    if (httpMethod === "OPTIONS") {
      const allow = router.allowed(path);
      if (allow.length === 0) throw notFound();
      answerEmpty(response, { allow: allow.join(", ") });
      return;
    }
    const match = router.match(httpMethod, path);
    switch (match.kind) {
      case "not_found":
        throw notFound();
      case "wrong_method": {
        const failure = new AppError("UNIMPLEMENTED", `the route takes ${match.allow.join(", ")}`);
        throw new HttpError(405, failure, { allow: match.allow.join(", ") });
      }
      case "found": {
        const { route } = match;
        assertMetadata(request.headers);
        const header = toHeaders(request);
        const known = edgeRequest(request);
        const lease = budget.lease(known.source);
        const life = callLife(response);
        const contextValues = createContextValues().set(edgeRequestKey, known).set(byteLeaseKey, lease);
        try {
          const message = await readMessage(match, request, { query, header, lease, signal: life.signal }).catch(
            (thrown: unknown) => {
              const failure = toAppError(thrown instanceof HttpError ? thrown.failure : thrown);
              onRefused({ ...known, path: methodPath(route) }, failure);
              throw thrown;
            },
          );
          const call = { request, response, route, message, header, contextValues, ...life };
          if (isUnary(route.method)) await answerUnary(call);
          else {
            lease.release();
            await answerStream(call);
          }
        } finally {
          lease.release();
        }
      }
    }
  }

  async function answerUnary({ response, request, route, message, header, signal, contextValues }: Call) {
    if (!isUnary(route.method)) return;
    const answered = await transport.unary(route.method, signal, undefined, header, message, contextValues);
    copyHeaders(answered.header, response);
    copyHeaders(answered.trailer, response);
    const body = toBody(route, answered.message);
    if (Buffer.byteLength(body.text) > messageLimits.unaryMaxBytes) throw answerTooLarge(messageLimits.unaryMaxBytes);
    answerWhole(request, response, { status: 200, ...body });
  }

  async function answerStream(call: Call): Promise<void> {
    const { request, response, route, message, header, signal, abort, contextValues } = call;
    if (!isServerStreaming(route.method)) return;
    const format = streamFormat(route, String(request.headers.accept ?? ""));
    const answered: StreamResponse = await transport.stream(
      route.method,
      signal,
      undefined,
      header,
      once(message),
      contextValues,
    );
    const messages = answered.message[Symbol.asyncIterator]();
    const writer = createResponseWriter(response, limits);
    try {
      if (request.method === "HEAD") {
        writeStreamHead(answered, response, format);
      } else {
        const first = messages.next();
        // Whoever waits below hears of a failure; this only keeps the process from calling it unobserved.
        first.catch(() => {});
        await Promise.race([first, elapsed(firstMessageMs, signal)]);
        writeStreamHead(answered, response, format);
        const known = { ...edgeRequest(request), path: methodPath(route), values: contextValues };
        await writeStream(writer, messages, first, format, { ...known, signal });
      }
      writer.finish();
    } finally {
      abort(new ConnectError("the reader is gone or the stream at its end", Code.Canceled));
      messages.return?.().catch(() => {});
    }
  }

  async function writeStream(
    writer: ResponseWriter,
    messages: AsyncIterator<Message>,
    first: Promise<IteratorResult<Message>>,
    format: StreamFormat,
    call: RefusedCall & { readonly signal: AbortSignal },
  ): Promise<void> {
    const { start, keepalive } = format;
    const { signal, requestId } = call;
    const quiet = keepalive === "" ? undefined : setInterval(() => writer.write(keepalive), keepaliveMs);
    try {
      if (start !== "") await writer.write(start);
      for (let next = first; ; next = messages.next()) {
        const result = await unlessAborted(next, signal);
        if (result.done === true) return;
        const part = format.message(result.value);
        if (Buffer.byteLength(part) > messageLimits.streamMaxBytes) throw answerTooLarge(messageLimits.streamMaxBytes);
        const outcome = await writer.write(part);
        if (outcome === "closed") return;
        if (outcome === "stalled") {
          const failure = new AppError(
            "SLOW_READER",
            "the stream was not read for too long; resume after the last event",
          );
          onRefused(call, failure);
          throw failure;
        }
        quiet?.refresh();
      }
    } catch (thrown) {
      if (!signal.aborted) await writer.write(format.error(toErrorAnswer(thrown, requestId).body));
    } finally {
      clearInterval(quiet);
    }
  }

  return async (request, response) => {
    try {
      await answer(request, response);
    } catch (thrown) {
      answerError(request, response, thrown);
    }
  };
}

/** The message that a request says by path, query and body. */
async function readMessage(
  { route, variables }: Extract<RouteMatch, { kind: "found" }>,
  request: EdgeIncoming,
  parts: { readonly query: string; readonly header: Headers; readonly lease: ByteLease; readonly signal: AbortSignal },
): Promise<Message> {
  const body = await readRouteBody(route, request, parts.lease, parts.signal);
  return bindRequest(route, { variables, query: resumedQuery(route.events, parts.query, parts.header), body });
}

function methodPath({ method }: Route): string {
  return `/${method.parent.typeName}/${method.name}`;
}

async function readRouteBody(
  route: Route,
  request: EdgeIncoming,
  lease: ByteLease,
  signal: AbortSignal,
): Promise<JsonValue | undefined> {
  if (route.body.kind !== "none") return readJson(request, messageLimits.unaryMaxBytes, lease, signal);
  if (hasBody(request)) throw new AppError("MALFORMED_MESSAGE", "the route takes no body");
  return undefined;
}

interface Call {
  readonly request: EdgeIncoming;
  readonly response: EdgeResponse;
  readonly route: Route;
  readonly message: Message;
  readonly header: Headers;
  readonly signal: AbortSignal;
  readonly abort: (reason: unknown) => void;
  readonly contextValues: ContextValues;
}

/** What ends a call with its request. */
function callLife(response: EdgeResponse): Pick<Call, "signal" | "abort"> {
  const controller = new AbortController();
  response.once("close", () => {
    if (!response.writableFinished) controller.abort(new ConnectError("the caller is gone", Code.Canceled));
  });
  return { signal: controller.signal, abort: (reason) => controller.abort(reason) };
}

/** The body of an answer: the response, or its one field that the route names. A text goes as it is. */
function toBody({ method, responseField }: Route, message: Message): { contentType: string; text: string } {
  const json = toRestJson(method.output as DescMessage, message);
  if (responseField === undefined) return { contentType: jsonType, text: JSON.stringify(json) };
  const value = (json as Readonly<Record<string, JsonValue>>)[responseField.name] ?? null;
  return typeof value === "string"
    ? { contentType: "text/plain; charset=utf-8", text: value }
    : { contentType: jsonType, text: JSON.stringify(value) };
}

function writeStreamHead(answered: StreamResponse, response: EdgeResponse, format: StreamFormat): void {
  copyHeaders(answered.header, response);
  // Proxies must hand on each event as it comes.
  setHead(response, 200, { "content-type": format.contentType, "x-accel-buffering": "no" });
  // HTTP/2 sends them with the first part, which comes at once.
  if ("flushHeaders" in response) response.flushHeaders();
}

/**
 * The header of a browser that reconnects by itself counts for more than the
 * query, which still says where it began.
 */
function resumedQuery(events: EventFields | undefined, query: string, header: Headers): string {
  const last = header.get("last-event-id");
  if (events === undefined || last === null || last === "") return query;
  if (!/^\d{1,20}$/.test(last)) throw new AppError("INVALID_METADATA", "last-event-id: must be the number of an event");
  const { name, jsonName } = events.cursor;
  const others = query.split("&").filter((pair) => ![name, jsonName].includes(pair.split("=", 1)[0] ?? ""));
  return [...others, `${name}=${last}`].filter((pair) => pair !== "").join("&");
}

function copyHeaders(from: Headers, response: EdgeResponse): void {
  from.forEach((value, name) => response.setHeader(name, value));
}

async function* once<T>(message: T): AsyncIterable<T> {
  yield message;
}

/**
 * Waits for a promise, but not past the signal: a peer that does not heed it is
 * not waited for. Leaves nothing behind on the signal, which lives as long as
 * the stream.
 */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const refuse = (): void => reject(signal.reason);
    if (signal.aborted) refuse();
    signal.addEventListener("abort", refuse, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", refuse));
  });
}

/** Ends after a time, or with the call. */
function elapsed(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    timer.unref();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

function splitOnce(text: string, separator: string): readonly [string, string] {
  const index = text.indexOf(separator);
  return index === -1 ? [text, ""] : [text.slice(0, index), text.slice(index + separator.length)];
}

function notFound(): AppError {
  return new AppError("ROUTE_NOT_FOUND", "no such route");
}
