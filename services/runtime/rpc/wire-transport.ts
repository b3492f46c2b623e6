import type {
  DescMessage,
  DescMethod,
  DescMethodStreaming,
  DescMethodUnary,
  MessageInitShape,
} from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ContextValues,
  createContextValues,
  type Interceptor,
  type StreamRequest,
  type StreamResponse,
  type Transport,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { AppError } from "../errors/app-error.ts";
import { abortFailure, deadlineExceeded, toCallFailure } from "./call-failure.ts";
import { CallHeader } from "./call-header.ts";
import type { StreamAnswer, UnaryAnswer } from "./invoke.ts";
import { methodPath } from "./invoke.ts";
import { type MessageCodec, type MessageLimits, maxBytesOf, type Packed } from "./message-codec.ts";
import { mapMessages, observeStream } from "./message-stream.ts";

/** One call on its way out. */
export interface OutgoingCall {
  readonly method: DescMethod;
  readonly header: Headers;
  /** When it aborts the call ends, with `abortFailure(signal.reason)`. `undefined` if the caller has none. */
  readonly signal: AbortSignal | undefined;
  /** When the call ends, with `deadlineExceeded()`, and the peer must give up, in milliseconds since the epoch; Infinity for never. */
  readonly deadline: number;
}

/** Carries the messages of calls to a peer. Rejects with ConnectErrors only. */
export interface Wire<P extends Packed> {
  /** How the messages are carried. */
  readonly codec: MessageCodec<P>;
  unary(call: OutgoingCall, request: P): Promise<UnaryAnswer<P>>;
  /**
   * Resolves with the peer's headers. Reads `requests` as fast as the peer
   * does, and ends them (`return`) when the call ends.
   */
  stream(call: OutgoingCall, requests: AsyncIterable<P>): Promise<StreamAnswer<P>>;
}

const deadlineOfRequest: unique symbol = Symbol("cadre.deadline");

interface WithDeadline {
  readonly [deadlineOfRequest]?: number;
}

/**
 * When an outgoing call must have ended, in milliseconds since the epoch;
 * Infinity for no deadline. For the interceptors of a client.
 */
export function deadlineOf(request: UnaryRequest | StreamRequest): number {
  return (request as WithDeadline)[deadlineOfRequest] ?? Number.POSITIVE_INFINITY;
}

/**
 * A Connect transport over a wire: it packs and unpacks messages, keeps their
 * limits, and runs the client's interceptors, outermost first. Each interceptor
 * is applied once, not once a call. The wire ends the call by its signal and
 * deadline; an interceptor that waits for anything else heeds them, too.
 */
export function createWireTransport<P extends Packed>(
  wire: Wire<P>,
  interceptors: readonly Interceptor[],
  limits: MessageLimits,
): Transport {
  const run = interceptors.reduceRight<Parameters<Interceptor>[0]>(
    (next, interceptor) => interceptor(next),
    (request) => (request.stream ? sendStream(wire, request, limits) : sendUnary(wire, request, limits)),
  );
  return {
    async unary<I extends DescMessage, O extends DescMessage>(
      method: DescMethodUnary<I, O>,
      signal: AbortSignal | undefined,
      timeoutMs: number | undefined,
      header: HeadersInit | undefined,
      input: MessageInitShape<I>,
      contextValues?: ContextValues,
    ) {
      try {
        const response = await run({
          ...common(method, signal, timeoutMs, header, contextValues),
          stream: false,
          method,
          message: create<DescMessage>(method.input, input),
        } as UnaryRequest & WithDeadline);
        return response as UnaryResponse<I, O>;
      } catch (thrown) {
        throw toCallFailure(thrown, "");
      }
    },
    async stream<I extends DescMessage, O extends DescMessage>(
      method: DescMethodStreaming<I, O>,
      signal: AbortSignal | undefined,
      timeoutMs: number | undefined,
      header: HeadersInit | undefined,
      input: AsyncIterable<MessageInitShape<I>>,
      contextValues?: ContextValues,
    ) {
      try {
        const response = await run({
          ...common(method, signal, timeoutMs, header, contextValues),
          stream: true,
          method,
          message: mapMessages(input, (message) => create<DescMessage>(method.input, message)),
        } as StreamRequest & WithDeadline);
        if (!response.stream) throw new TypeError(`an interceptor answered ${methodPath(method)} with one message`);
        return { ...response, message: observeStream(response.message, forCaller) } as StreamResponse<I, O>;
      } catch (thrown) {
        throw toCallFailure(thrown, "");
      }
    },
  };
}

/** The signal of a call whose caller has none. Who listens to it must leave again: it is that of all of them. */
const neverAborts = new AbortController().signal;

/** When a call that begins now must have ended. Throws what it fails with if that is already so. */
function deadlineIn(timeoutMs: number | undefined, signal: AbortSignal | undefined): number {
  if (signal?.aborted === true) throw abortFailure(signal.reason);
  if (timeoutMs === undefined) return Number.POSITIVE_INFINITY;
  if (timeoutMs <= 0) throw deadlineExceeded();
  return Date.now() + timeoutMs;
}

function common(
  method: DescMethod,
  signal: AbortSignal | undefined,
  timeoutMs: number | undefined,
  header: HeadersInit | undefined,
  contextValues: ContextValues | undefined,
) {
  return {
    service: method.parent,
    requestMethod: "POST",
    url: `grpc://mesh${methodPath(method)}`,
    [deadlineOfRequest]: deadlineIn(timeoutMs, signal),
    signal: signal ?? neverAborts,
    header: CallHeader.from(header),
    contextValues: contextValues ?? createContextValues(),
  };
}

/** Callers get failures in their own form, whatever threw them. */
const forCaller = { translate: (thrown: unknown) => toCallFailure(thrown, "") };

async function sendUnary<P extends Packed>(
  wire: Wire<P>,
  request: UnaryRequest,
  limits: MessageLimits,
): Promise<UnaryResponse> {
  const { method, service } = request;
  const maxBytes = maxBytesOf(limits, method);
  const answer = await wire.unary(outgoing(request), wire.codec.pack(method.input, request.message, maxBytes));
  return {
    stream: false,
    service,
    method,
    header: answer.header,
    trailer: answer.trailer,
    message: unpackAnswer(wire.codec, method, answer.packed, maxBytes),
  };
}

async function sendStream<P extends Packed>(
  wire: Wire<P>,
  request: StreamRequest,
  limits: MessageLimits,
): Promise<StreamResponse> {
  const { method, service } = request;
  const maxBytes = maxBytesOf(limits, method);
  const requests = mapMessages(request.message, (message) => wire.codec.pack(method.input, message, maxBytes));
  const answer = await wire.stream(outgoing(request), requests);
  return {
    stream: true,
    service,
    method,
    header: answer.header,
    trailer: answer.trailer,
    message: mapMessages(answer.messages, (packed) => unpackAnswer(wire.codec, method, packed, maxBytes)),
  };
}

function outgoing(request: UnaryRequest | StreamRequest): OutgoingCall {
  const { method, header, signal } = request;
  return { method, header, signal: signal === neverAborts ? undefined : signal, deadline: deadlineOf(request) };
}

/** A request that is malformed is its sender's fault; an answer that is malformed is the peer's. */
function unpackAnswer<P extends Packed>(codec: MessageCodec<P>, method: DescMethod, packed: P, maxBytes: number) {
  try {
    return codec.unpack(method.output, packed, maxBytes);
  } catch (thrown) {
    if (!(thrown instanceof AppError) || thrown.reason !== "MALFORMED_MESSAGE") throw thrown;
    throw new ConnectError("the peer's answer is malformed", Code.Internal, undefined, undefined, thrown);
  }
}
