import type { OutgoingHttpHeaders } from "node:http";
import type { DescMethod, Message } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import {
  Code,
  ConnectError,
  type ContextValues,
  createConnectRouter,
  createContextKey,
  createContextValues,
  type HandlerContext,
  type Interceptor,
} from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerResponse } from "@connectrpc/connect/protocol";
import { AppError } from "../errors/app-error.ts";
import { toAppError, toConnectError } from "../errors/failure.ts";
import { type DeadlineOptions, defaultDeadlines } from "../interceptor/deadline.ts";
import type { Logger } from "../log/log.ts";
import type { Implementation } from "../rpc/implementation.ts";
import { timeoutMsOf } from "../rpc/timeout.ts";
import { type ByteBudget, type ByteLease, byteLeaseKey, createByteBudget } from "./byte-budget.ts";
import { type CallProtocol, protocolOfContentType, protocolOfQuery } from "./call-protocol.ts";
import { type Encoding, encodings, isEncoding, responseCompressions } from "./compression.ts";
import { type EdgeLimits, edgeLimits, messageLimits } from "./edge-limits.ts";
import {
  type EdgeHandler,
  type EdgeIncoming,
  type EdgeRequest,
  type EdgeResponse,
  edgeRequest,
  edgeRequestKey,
} from "./edge-request.ts";
import { guardedBody, type MessageGuard, openMessage } from "./guarded-message.ts";
import { jsonReadOptions } from "./json-message.ts";
import { assertSendable } from "./message-size.ts";
import { logRefused, type OnRefused } from "./refused-call.ts";
import { authorityOf } from "./request-head.ts";
import { assertMetadata } from "./request-metadata.ts";
import { pathOf } from "./request-path.ts";
import { createResponseWriter, type ResponseWriter } from "./response-writer.ts";

export interface ConnectHandlerOptions {
  readonly implementations: readonly Implementation[];
  /** Outermost first. */
  readonly interceptors: readonly Interceptor[];
  readonly log: Logger;
  /** Told of calls that are refused outside of the interceptors; they are logged unless given. */
  readonly onRefused?: OnRefused;
  /** Of a unary method's request; 4 MiB by default. */
  readonly readMaxBytes?: number;
  /** Of a unary method's response; 4 MiB by default. */
  readonly writeMaxBytes?: number;
  /** Of each message of a streaming method, both ways; 1 MiB by default. */
  readonly streamMaxBytes?: number;
  /** The longest timeouts that a caller may ask for; those of the deadline interceptor by default. */
  readonly deadlines?: Pick<DeadlineOptions, "maxUnaryMs" | "maxStreamMs">;
  readonly limits?: Partial<EdgeLimits>;
  /** Shared with whoever else reads bodies; one of its own by default. */
  readonly budget?: ByteBudget;
}

/** Serves the methods of services to Connect, gRPC and gRPC-Web clients. */
export interface ConnectHandler {
  /** Serves a request; one for another path is answered with 404. */
  readonly handle: EdgeHandler;
  /** Whether a request's target, as it came, is exactly the path of a method here. */
  serves(target: string): boolean;
}

/** A method as it is served. */
interface Route {
  readonly method: DescMethod;
  readonly handler: UniversalHandler;
  /** Of each message of a request. */
  readonly maxBytes: number;
  /** Of each message of an answer. */
  readonly maxAnswerBytes: number;
  readonly maxTimeoutMs: number;
  readonly getAllowed: boolean;
}

/** What the edge adds to a call on its way through the adapter. */
interface EdgeCall {
  readonly request: EdgeRequest;
  /** Why the call is refused before its body is read, if it is. */
  readonly refusal: ConnectError | undefined;
  /** Holds a message of the answer to its limit, in the form that it is sent in. Throws RESPONSE_TOO_LARGE. */
  readonly assertSendable: (message: Message) => void;
  /** Set by the writer when the reader takes nothing; the response's stream then ends. */
  stalled: boolean;
}

const edgeCallKey = createContextKey<EdgeCall | undefined>(undefined, { description: "cadre.edge-call" });

/**
 * Serves implementations by connect-node's protocol handlers, with what they
 * lack put around them.
 *
 * 1. A path matches in its one spelling only.
 * 2. The adapter reads nothing that was not checked: `guardedBody` stands
 *    before its parsers, `refusalOf` before everything else.
 * 3. A refusal reaches the adapter through its own doors (the request gate, or
 *    the body), so that it is answered in the form of the caller's protocol.
 * 4. Every error that leaves carries `google.rpc.ErrorInfo`.
 * 5. A response is written no faster than it is read.
 *
 * Expects requests of `createEdgeServer`.
 */
export function createConnectHandler(options: ConnectHandlerOptions): ConnectHandler {
  const limits: EdgeLimits = { ...edgeLimits, ...options.limits };
  const budget = options.budget ?? createByteBudget(limits);
  const routes = createRoutes(options);
  const { log, onRefused = logRefused(log) } = options;

  async function serve(route: Route, protocol: CallProtocol, request: EdgeIncoming, response: EdgeResponse) {
    const known = edgeRequest(request);
    const lease = budget.lease(known.source);
    const ended = new AbortController();
    response.once("close", () => {
      lease.release();
      if (!response.writableFinished) ended.abort(new ConnectError("the caller went away", Code.Canceled));
    });
    const isGet = request.method === "GET";
    const encodingName = isGet ? queryOf(request).get("compression") : request.headers[protocol.encodingField];
    const encoding = typeof encodingName === "string" && isEncoding(encodingName) ? encodingName : undefined;
    const guard: MessageGuard = {
      method: route.method,
      protocol,
      encoding,
      maxBytes: route.maxBytes,
      lease,
      pace: limits,
    };

    const headers = headersFor(request, protocol, encoding);
    const refusal = await refusalOf(route, guard, encodingName ?? undefined, request, headers);
    const call: EdgeCall = {
      request: known,
      refusal: refusal === undefined ? undefined : toConnectError(refusal, known.requestId),
      assertSendable: (message) => assertSendable(route.method.output, message, protocol.json, route.maxAnswerBytes),
      stalled: false,
    };
    const values = contextOf(known, call, lease);
    const note = (failure: AppError) => onRefused({ ...known, path: route.handler.requestPath, values }, failure);
    if (refusal !== undefined) {
      note(refusal);
      // The adapter sets its timer before it asks the gate.
      headers.delete(protocol.timeoutField);
      if (refusal.reason === "UNIMPLEMENTED") response.setHeader(protocol.acceptField, encodings.join(","));
    }

    const answer = await route.handler({
      httpVersion: request.httpVersion,
      method: request.method ?? "",
      url: `http://${authorityOf(request) ?? "unknown"}${request.url ?? ""}`,
      header: headers,
      body: translated(guardedBody(request, guard, ended.signal), known, note),
      signal: ended.signal,
      contextValues: values,
    });
    const writer = createResponseWriter(response, limits);
    await write(answer, route.method.methodKind === "unary", writer, call);
    if (call.stalled) note(new AppError("SLOW_READER", "the reader took nothing"));
  }

  return {
    serves: (target) => routes.has(pathOf(target)),
    handle(request, response) {
      const route = routes.get(pathOf(request.url ?? ""));
      if (route === undefined) return answerPlain(response, 404);
      const isGet = request.method === "GET" && route.getAllowed;
      if (request.method !== "POST" && !isGet) {
        response.setHeader("allow", route.getAllowed ? "GET, POST" : "POST");
        return answerPlain(response, 405);
      }
      if (route.method.methodKind === "bidi_streaming" && request.httpVersionMajor === 1) {
        // A client that expects to read and write at once would wait for ever.
        response.setHeader("connection", "close");
        return answerPlain(response, 505);
      }
      const protocol = isGet
        ? protocolOfQuery(queryOf(request).get("encoding"))
        : protocolOfContentType(request.headers["content-type"] ?? "", route.method.methodKind);
      if (protocol === undefined) return answerPlain(response, 415);
      serve(route, protocol, request, response).catch((error: unknown) => {
        log.error({ err: error, request_id: edgeRequest(request).requestId }, "answering failed");
        if (response.headersSent) response.destroy();
        else answerPlain(response, 500);
      });
    },
  };
}

function createRoutes(options: ConnectHandlerOptions): ReadonlyMap<string, Route> {
  const unaryReadMaxBytes = options.readMaxBytes ?? messageLimits.unaryMaxBytes;
  const streamMaxBytes = options.streamMaxBytes ?? messageLimits.streamMaxBytes;
  const deadlines = options.deadlines ?? defaultDeadlines;
  const handlersOf = (readMaxBytes: number, writeMaxBytes: number): readonly UniversalHandler[] => {
    const router = createConnectRouter({
      interceptors: [answerFailures, ...options.interceptors],
      acceptCompression: [...responseCompressions],
      readMaxBytes,
      writeMaxBytes,
      jsonOptions: jsonReadOptions,
      requestGate: refuse,
    });
    for (const { service, handlers } of options.implementations) router.service(service, handlers);
    return router.handlers;
  };
  const routes = new Map<string, Route>();
  const unaryWriteMaxBytes = options.writeMaxBytes ?? messageLimits.unaryMaxBytes;
  const add = (handler: UniversalHandler, maxBytes: number, maxAnswerBytes: number, maxTimeoutMs: number) =>
    routes.set(handler.requestPath, {
      method: handler.method,
      handler,
      maxBytes,
      maxAnswerBytes,
      maxTimeoutMs,
      getAllowed:
        handler.method.methodKind === "unary" &&
        handler.method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS,
    });
  for (const handler of handlersOf(unaryReadMaxBytes, unaryWriteMaxBytes)) {
    if (handler.method.methodKind === "unary")
      add(handler, unaryReadMaxBytes, unaryWriteMaxBytes, deadlines.maxUnaryMs);
  }
  for (const handler of handlersOf(streamMaxBytes, streamMaxBytes)) {
    if (handler.method.methodKind !== "unary") add(handler, streamMaxBytes, streamMaxBytes, deadlines.maxStreamMs);
  }
  return routes;
}

/** Checks all that can be known before the body, and the message of a GET. */
async function refusalOf(
  route: Route,
  guard: MessageGuard,
  encodingName: string | string[] | undefined,
  request: EdgeIncoming,
  headers: Headers,
): Promise<AppError | undefined> {
  const { protocol } = guard;
  try {
    assertMetadata(request.headers);
    // Node turns a timer of 2^31 ms or more into one of 1 ms, so none may be set by an unchecked timeout.
    if ((timeoutMsOf(headers) ?? 0) > route.maxTimeoutMs) {
      throw new AppError("INVALID_TIMEOUT", `the timeout is longer than ${route.maxTimeoutMs} ms`);
    }
    if (protocol.name === "connect") assertConnectVersion(request);
    if (encodingName !== undefined && encodingName !== "identity" && guard.encoding === undefined) {
      throw new AppError("UNIMPLEMENTED", `the encoding is not one of ${encodings.join(", ")}`);
    }
    if (request.method === "GET") await openQueryMessage(request, guard);
    return undefined;
  } catch (error) {
    return toAppError(error);
  }
}

/** A browser can't send this field, or a GET with this parameter, by a plain form or link. */
function assertConnectVersion(request: EdgeIncoming): void {
  const [name, value, expected] =
    request.method === "GET"
      ? ["the parameter connect", queryOf(request).get("connect"), "v1"]
      : ["the header connect-protocol-version", request.headers["connect-protocol-version"], "1"];
  if (value !== expected) throw new AppError("INVALID_METADATA", `${name} must be ${expected}`);
}

async function openQueryMessage(request: EdgeIncoming, guard: MessageGuard): Promise<void> {
  const query = queryOf(request);
  const text = query.get("message") ?? "";
  let bytes: Uint8Array;
  try {
    bytes = query.get("base64") === "1" ? base64Decode(text) : new TextEncoder().encode(text);
  } catch (error) {
    throw new AppError("MALFORMED_MESSAGE", "the parameter message is not base64", { cause: error });
  }
  await openMessage(bytes, guard.encoding !== undefined, guard);
}

/** The door through which a refusal gets into the adapter before it reads the body. */
function refuse(context: HandlerContext): void {
  const refusal = context.values.get(edgeCallKey)?.refusal;
  if (refusal !== undefined) throw refusal;
}

/** The outermost interceptor: whatever is thrown beneath leaves as a failure of the contract. */
const answerFailures: Interceptor = (next) => async (request) => {
  const call = request.contextValues.get(edgeCallKey);
  const failure = (error: unknown) => toConnectError(toAppError(error), call?.request.requestId ?? "");
  try {
    const response = await next(request);
    if (response.stream) return { ...response, message: endable(response.message, call, failure) };
    call?.assertSendable(response.message);
    return response;
  } catch (error) {
    throw failure(error);
  }
};

/** A response's messages, each within its limit; ended when the reader has stalled. */
async function* endable<M extends Message>(
  messages: AsyncIterable<M>,
  call: EdgeCall | undefined,
  failure: (error: unknown) => ConnectError,
): AsyncGenerator<M> {
  try {
    for await (const message of messages) {
      call?.assertSendable(message);
      yield message;
      if (call?.stalled === true) {
        throw new AppError("SLOW_READER", "the stream was not read for too long; resume after the last event");
      }
    }
  } catch (error) {
    throw failure(error);
  }
}

/** The guarded body with its failures in the form that the adapter answers. */
async function* translated(
  body: AsyncIterable<Uint8Array>,
  known: EdgeRequest,
  note: (error: AppError) => void,
): AsyncGenerator<Uint8Array> {
  try {
    yield* body;
  } catch (error) {
    const failure = toAppError(error);
    note(failure);
    throw toConnectError(failure, known.requestId);
  }
}

function contextOf(known: EdgeRequest, call: EdgeCall, lease: ByteLease): ContextValues {
  return createContextValues().set(edgeRequestKey, known).set(edgeCallKey, call).set(byteLeaseKey, lease);
}

/** The fields that handlers and interceptors see. */
function headersFor(request: EdgeIncoming, protocol: CallProtocol, encoding: Encoding | undefined): Headers {
  const headers = new Headers();
  for (const name in request.headers) {
    const value = request.headers[name];
    // Of the body nothing remains as it was announced: it comes inflated, and framed anew.
    if (value === undefined || name.startsWith(":") || name === "content-length") continue;
    if (name === protocol.encodingField && request.method !== "GET") continue;
    // A call has one timeout: that of its protocol.
    if ((name === "connect-timeout-ms" || name === "grpc-timeout") && name !== protocol.timeoutField) continue;
    if (typeof value === "string") headers.append(name, value);
    else for (const item of value) headers.append(name, item);
  }
  // A caller that compresses and says nothing of answers gets them compressed.
  if (encoding !== undefined && !headers.has(protocol.acceptField)) headers.set(protocol.acceptField, encoding);
  headers.set("x-request-id", edgeRequest(request).requestId);
  return headers;
}

async function write(
  answer: UniversalServerResponse,
  unary: boolean,
  writer: ResponseWriter,
  call: EdgeCall,
): Promise<void> {
  const parts = answer.body?.[Symbol.asyncIterator]();
  try {
    // Handlers may set headers until the first part.
    let part = await parts?.next();
    writer.head(answer.status, toNodeHeaders(answer.header));
    let last: Uint8Array | undefined;
    while (part !== undefined && part.done !== true) {
      const next = unary ? await parts?.next() : undefined;
      if (next?.done === true) {
        last = part.value;
        break;
      }
      const outcome = await writer.write(part.value);
      if (outcome === "closed") return;
      if (outcome === "stalled") call.stalled = true;
      part = next ?? (await parts?.next());
    }
    writer.finish({ last, trailers: answer.trailer === undefined ? undefined : toNodeHeaders(answer.trailer) });
  } finally {
    parts?.return?.().catch(() => {
      // Its error was the answer, or came after it.
    });
  }
}

function toNodeHeaders(headers: Headers | undefined): OutgoingHttpHeaders {
  const result: OutgoingHttpHeaders = {};
  headers?.forEach((value, name) => {
    if (name !== "set-cookie") result[name] = value;
  });
  const cookies = headers?.getSetCookie() ?? [];
  if (cookies.length > 0) result["set-cookie"] = cookies;
  return result;
}

function queryOf(request: EdgeIncoming): URLSearchParams {
  const target = request.url ?? "";
  const start = target.indexOf("?");
  return new URLSearchParams(start === -1 ? "" : target.slice(start));
}

function answerPlain(response: EdgeResponse, status: number): void {
  response.statusCode = status;
  response.end();
}
