import type { DescMethod, DescMethodStreaming, DescMethodUnary, DescService, Message } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ContextValues,
  createContextKey,
  type HandlerContext,
  type Interceptor,
  type StreamRequest,
  type StreamResponse,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { CallHeader } from "./call-header.ts";
import type { Implementation } from "./implementation.ts";
import { type MessageCodec, type MessageLimits, maxBytesOf, type Packed } from "./message-codec.ts";
import { mapMessages, singleMessage } from "./message-stream.ts";
import { requestContextKey } from "./request-context.ts";

/** When the caller gives up on the call, in milliseconds since the epoch; Infinity for never. Set by the host. */
export const arrivedDeadlineKey = createContextKey(Number.POSITIVE_INFINITY, { description: "cadre.deadline" });

/** One call as the process that hosts the method took it. */
export interface IncomingCall {
  readonly header: Headers;
  /** Aborts when the call ends before it is answered: its caller left, its deadline passed, its host stops. */
  readonly signal: AbortSignal;
  /** The host's own: nobody else has them. */
  readonly contextValues: ContextValues;
}

/** The answer to a unary call. */
export interface UnaryAnswer<P extends Packed> {
  readonly header: Headers;
  readonly trailer: Headers;
  readonly packed: P;
}

/** The answer to a call of a streaming method; its trailer is complete when the messages have ended. */
export interface StreamAnswer<P extends Packed> {
  readonly header: Headers;
  readonly trailer: Headers;
  readonly messages: AsyncIterable<P>;
}

/** A unary method with its handler behind the interceptors, between messages as they are carried. */
export interface ServedUnary<P extends Packed> {
  readonly kind: "unary";
  readonly method: DescMethodUnary;
  answer(call: IncomingCall, request: P): Promise<UnaryAnswer<P>>;
}

/** A streaming method with its handler behind the interceptors, between messages as they are carried. */
export interface ServedStream<P extends Packed> {
  readonly kind: "stream";
  readonly method: DescMethodStreaming;
  answer(call: IncomingCall, requests: AsyncIterable<P>): Promise<StreamAnswer<P>>;
}

/**
 * A method that is served. Both planes of the mesh serve through it, so that a
 * handler cannot tell them apart.
 *
 * It fails with whatever the interceptors let through, and with AppError
 * MESSAGE_TOO_LARGE and MALFORMED_MESSAGE.
 */
export type ServedMethod<P extends Packed> = ServedUnary<P> | ServedStream<P>;

/** The path that a method is called by, for example `/cadre.tools.v1.ToolService/ListTools`. */
export function methodPath(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/**
 * Puts the handlers of services behind interceptors, outermost first, and finds
 * them by path. Each interceptor is applied once a method, not once a call.
 *
 * @throws TypeError if two implementations are of one service
 */
export function serveMethods<P extends Packed>(
  implementations: readonly Implementation[],
  interceptors: readonly Interceptor[],
  codec: MessageCodec<P>,
  limits: MessageLimits,
): ReadonlyMap<string, ServedMethod<P>> {
  const served = new Map<string, ServedMethod<P>>();
  for (const { service, handlers } of implementations) {
    for (const method of service.methods) {
      const path = methodPath(method);
      if (served.has(path)) throw new TypeError(`${path} is implemented twice`);
      const handler = findHandler(service, method, handlers);
      served.set(path, serveMethod(method, handler, interceptors, codec, maxBytesOf(limits, method)));
    }
  }
  return served;
}

function serveMethod<P extends Packed>(
  method: DescMethod,
  handler: Handler,
  interceptors: readonly Interceptor[],
  codec: MessageCodec<P>,
  maxBytes: number,
): ServedMethod<P> {
  return isUnary(method)
    ? serveUnary(method, handler, interceptors, codec, maxBytes)
    : serveStream(method as DescMethodStreaming, handler, interceptors, codec, maxBytes);
}

/** Whether a method is unary; any other is a streaming one. */
function isUnary(method: DescMethod): method is DescMethodUnary {
  return method.methodKind === "unary";
}

/** A handler of any kind; what its input and output are follows from the method's kind. */
type Handler = (input: never, context: HandlerContext) => unknown;

type CallFn = Parameters<Interceptor>[0];

function findHandler(service: DescService, method: DescMethod, handlers: object): Handler {
  const handler: unknown = Reflect.get(handlers, method.localName);
  if (typeof handler === "function") return handler.bind(handlers) as Handler;
  return () => {
    throw new ConnectError(`${service.typeName}/${method.name} is not implemented`, Code.Unimplemented);
  };
}

function intercept(handler: CallFn, interceptors: readonly Interceptor[]): CallFn {
  return interceptors.reduceRight((next, interceptor) => interceptor(next), handler);
}

function serveUnary<P extends Packed>(
  method: DescMethodUnary,
  handler: Handler,
  interceptors: readonly Interceptor[],
  codec: MessageCodec<P>,
  maxBytes: number,
): ServedUnary<P> {
  const service = method.parent;
  const url = `grpc://mesh${methodPath(method)}`;
  const run = intercept(async (request) => {
    const context = handlerContext(request);
    const output = await handler(request.message as never, context);
    const message = create(method.output, output as Message);
    const { responseHeader: header, responseTrailer: trailer } = context;
    return { stream: false, service, method, header, trailer, message } satisfies UnaryResponse;
  }, interceptors);
  return {
    kind: "unary",
    method,
    async answer({ header, signal, contextValues }, packed) {
      const message = codec.unpack(method.input, packed, maxBytes);
      const request: UnaryRequest = {
        stream: false,
        service,
        method,
        requestMethod: "POST",
        url,
        signal,
        header,
        contextValues,
        message,
      };
      const response = await run(request);
      if (response.stream) throw new TypeError(`an interceptor answered ${url} with a stream`);
      return {
        header: response.header,
        trailer: response.trailer,
        packed: codec.pack(method.output, response.message, maxBytes),
      };
    },
  };
}

function serveStream<P extends Packed>(
  method: DescMethodStreaming,
  handler: Handler,
  interceptors: readonly Interceptor[],
  codec: MessageCodec<P>,
  maxBytes: number,
): ServedStream<P> {
  const service = method.parent;
  const url = `grpc://mesh${methodPath(method)}`;
  const run = intercept(async (request) => {
    const context = handlerContext(request);
    const outputs = await startHandler(method, handler, request as StreamRequest, context);
    const message = mapMessages(outputs, (output) => create(method.output, output));
    const { responseHeader: header, responseTrailer: trailer } = context;
    return { stream: true, service, method, header, trailer, message } satisfies StreamResponse;
  }, interceptors);
  return {
    kind: "stream",
    method,
    async answer({ header, signal, contextValues }, requests) {
      const request: StreamRequest = {
        stream: true,
        service,
        method,
        requestMethod: "POST",
        url,
        signal,
        header,
        contextValues,
        message: mapMessages(requests, (packed) => codec.unpack(method.input, packed, maxBytes)),
      };
      const response = await run(request);
      if (!response.stream) throw new TypeError(`an interceptor answered ${url} with one message`);
      return {
        header: response.header,
        trailer: response.trailer,
        messages: mapMessages(response.message, (message) => codec.pack(method.output, message, maxBytes)),
      };
    },
  };
}

async function startHandler(
  method: DescMethodStreaming,
  handler: Handler,
  request: StreamRequest,
  context: HandlerContext,
): Promise<AsyncIterable<Message>> {
  switch (method.methodKind) {
    case "server_streaming":
      return handler((await onlyMessage(request.message)) as never, context) as AsyncIterable<Message>;
    case "client_streaming":
      return singleMessage((await handler(request.message as never, context)) as Message);
    case "bidi_streaming":
      return handler(request.message as never, context) as AsyncIterable<Message>;
  }
}

async function onlyMessage(messages: AsyncIterable<Message>): Promise<Message> {
  const iterator = messages[Symbol.asyncIterator]();
  const first = await iterator.next();
  if (first.done === true) throw new ConnectError("the request has no message", Code.Unimplemented);
  const second = await iterator.next();
  if (second.done !== true) throw new ConnectError("the request has more than one message", Code.Unimplemented);
  return first.value;
}

function handlerContext(request: UnaryRequest | StreamRequest): HandlerContext {
  const { contextValues } = request;
  return {
    service: request.service,
    method: request.method,
    signal: request.signal,
    timeoutMs: () => remainingMs(contextValues),
    requestMethod: request.requestMethod,
    requestHeader: request.header,
    responseHeader: new CallHeader(),
    responseTrailer: new CallHeader(),
    protocolName: "grpc",
    values: contextValues,
    url: request.url,
  };
}

function remainingMs(values: ContextValues): number | undefined {
  const set = values.get(requestContextKey)?.deadline ?? Number.POSITIVE_INFINITY;
  const deadline = Math.min(set, values.get(arrivedDeadlineKey));
  return deadline === Number.POSITIVE_INFINITY ? undefined : deadline - Date.now();
}
