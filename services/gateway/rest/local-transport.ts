import type {
  DescMessage,
  DescMethod,
  DescMethodStreaming,
  DescMethodUnary,
  MessageInitShape,
} from "@bufbuild/protobuf";
import { create, isMessage } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ContextValues,
  createContextValues,
  type HandlerContext,
  type Interceptor,
  type StreamRequest,
  type StreamResponse,
  type Transport,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import type { Implementation } from "../../runtime/rpc/implementation.ts";
import { requestContext } from "../../runtime/rpc/request-context.ts";

type Call = Parameters<Interceptor>[0];

/**
 * Calls handlers of this process through the same interceptors as a request
 * that came by Connect or gRPC, so that there is one pipeline whatever the
 * protocol. Nothing is encoded on the way: what is called is ours.
 *
 * Headers and context values of a call are the request's as they are given.
 */
export function createLocalTransport(
  implementations: readonly Implementation[],
  interceptors: readonly Interceptor[],
): Transport {
  const calls = new Map<string, Call>();
  for (const { service, handlers } of implementations) {
    for (const method of service.methods) {
      const handler = (handlers as Readonly<Record<string, unknown>>)[method.localName];
      calls.set(
        keyOf(method),
        interceptors.reduceRight<Call>((next, wrap) => wrap(next), terminal(method, handler)),
      );
    }
  }
  function callOf(method: DescMethod): Call {
    const call = calls.get(keyOf(method));
    if (call === undefined) throw new ConnectError(`${keyOf(method)} is not served here`, Code.Unimplemented);
    return call;
  }
  return {
    async unary<I extends DescMessage, O extends DescMessage>(
      method: DescMethodUnary<I, O>,
      signal: AbortSignal | undefined,
      _timeoutMs: number | undefined,
      header: HeadersInit | undefined,
      message: MessageInitShape<I>,
      contextValues?: ContextValues,
    ) {
      const request = {
        ...requestCommon(method, signal, header, contextValues),
        stream: false,
        message: toMessage(method.input, message),
      } as UnaryRequest;
      return (await callOf(method)(request)) as UnaryResponse<I, O>;
    },
    async stream<I extends DescMessage, O extends DescMessage>(
      method: DescMethodStreaming<I, O>,
      signal: AbortSignal | undefined,
      _timeoutMs: number | undefined,
      header: HeadersInit | undefined,
      messages: AsyncIterable<MessageInitShape<I>>,
      contextValues?: ContextValues,
    ) {
      const request = {
        ...requestCommon(method, signal, header, contextValues),
        stream: true,
        message: toMessages(method.input, messages),
      } as StreamRequest;
      return (await callOf(method)(request)) as StreamResponse<I, O>;
    },
  };
}

function keyOf(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

function requestCommon(
  method: DescMethod,
  signal: AbortSignal | undefined,
  header: HeadersInit | undefined,
  contextValues: ContextValues | undefined,
) {
  return {
    method,
    service: method.parent,
    requestMethod: "POST",
    url: `http://local/${keyOf(method)}`,
    signal: signal ?? new AbortController().signal,
    header: header instanceof Headers ? header : new Headers(header),
    contextValues: contextValues ?? createContextValues(),
  };
}

/** The end of the chain: the handler itself. */
function terminal(method: DescMethod, handler: unknown): Call {
  if (typeof handler !== "function") {
    return () =>
      Promise.reject(
        new ConnectError(`${method.parent.typeName}.${method.name} is not implemented`, Code.Unimplemented),
      );
  }
  return async (request) => {
    const context = contextOf(request);
    const common = { service: request.service, header: context.responseHeader, trailer: context.responseTrailer };
    if (!request.stream) {
      const message: unknown = await handler(request.message, context);
      return { ...common, stream: false, method: request.method, message: toMessage(method.output, message as never) };
    }
    // Of the stream kinds only those that take one message are served here.
    const input = await single(request.message);
    const messages = toMessages(method.output, handler(input, context) as AsyncIterable<never>);
    return { ...common, stream: true, method: request.method, message: messages };
  };
}

/** What `createHandlerContext` makes, without its timer: the deadline is the interceptors' business. */
function contextOf(request: UnaryRequest | StreamRequest): HandlerContext {
  const { contextValues } = request;
  return {
    service: request.service,
    method: request.method,
    protocolName: "connect",
    requestMethod: request.requestMethod,
    url: request.url,
    signal: request.signal,
    timeoutMs: () => remainingMs(contextValues),
    requestHeader: request.header,
    responseHeader: new Headers(),
    responseTrailer: new Headers(),
    values: contextValues,
  };
}

function remainingMs(values: ContextValues): number | undefined {
  const { deadline } = requestContext(values);
  return deadline === Number.POSITIVE_INFINITY ? undefined : deadline - Date.now();
}

async function single<T>(messages: AsyncIterable<T>): Promise<T> {
  for await (const message of messages) return message;
  throw new ConnectError("the request has no message", Code.Unimplemented);
}

function toMessage<S extends DescMessage>(schema: S, init: MessageInitShape<S>) {
  return isMessage(init, schema) ? init : create(schema, init);
}

async function* toMessages<S extends DescMessage>(schema: S, inits: AsyncIterable<MessageInitShape<S>>) {
  for await (const init of inits) yield toMessage(schema, init);
}
