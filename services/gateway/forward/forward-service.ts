import type { DescMessage, DescMethod, DescMethodStreaming, DescMethodUnary, DescService } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type HandlerContext,
  type ServiceImpl,
  type StreamResponse,
  type Transport,
} from "@connectrpc/connect";
import { AppError } from "../../runtime/errors/app-error.ts";
import { fromConnectError } from "../../runtime/errors/failure.ts";
import type { Implementation } from "../../runtime/rpc/implementation.ts";
import { onBehalfOf, requestContext } from "../../runtime/rpc/request-context.ts";

/** After how long it is worth to try a peer again that could not be reached. */
const lostPeerRetryMs = 1_000;

/**
 * Offers a service that another process serves: each method calls the same
 * method there, on behalf of the caller, and hands back what comes.
 *
 * 1. Messages pass as they are, with the fields that this build does not know.
 * 2. Of headers and trailers pass the `Idempotency-Key` on the way in and
 *    those that begin with `cadre-` on the way out; nothing else is the
 *    caller's business, in either direction.
 * 3. Errors pass with their details. What says nothing of the contract (a lost
 *    connection names addresses) is replaced by what does.
 * 4. The call ends with the caller's: by cancellation, disconnect or deadline.
 *
 * @param peer where the service is, its interceptors adding identity, trace and deadline
 */
export function forwardService(service: DescService, peer: Transport): Implementation {
  const handlers: Record<string, unknown> = {};
  for (const method of service.methods) handlers[method.localName] = forwardMethod(method, peer);
  return { service, handlers: handlers as ServiceImpl<DescService> };
}

function forwardMethod(method: DescMethod, peer: Transport): unknown {
  switch (method.methodKind) {
    case "unary":
      return forwardUnary(method, peer);
    case "server_streaming":
      return forwardServerStream(method, peer);
    default:
      throw new TypeError(`${method.parent.typeName}.${method.name} takes a stream and cannot be forwarded`);
  }
}

function forwardUnary(method: DescMethodUnary, peer: Transport): ServiceImpl<DescService>[string] {
  return async (request: never, context: HandlerContext) => {
    const { signal, timeoutMs, contextValues } = onBehalfOf(requestContext(context.values));
    try {
      const header = requestHeader(context);
      const response = await peer.unary(method, signal, timeoutMs, header, request, contextValues);
      passHeaders(response.header, context.responseHeader);
      passHeaders(response.trailer, context.responseTrailer);
      return response.message;
    } catch (thrown) {
      throw toCallersError(thrown, method);
    }
  };
}

function forwardServerStream(
  method: DescMethodStreaming<DescMessage, DescMessage>,
  peer: Transport,
): ServiceImpl<DescService>[string] {
  return async function* (request: never, context: HandlerContext) {
    const { signal, timeoutMs, contextValues } = onBehalfOf(requestContext(context.values));
    // Connect's transports do not pass on that a reader stopped; the signal does.
    const stopped = new AbortController();
    const ended = signal === undefined ? stopped.signal : AbortSignal.any([signal, stopped.signal]);
    try {
      const header = requestHeader(context);
      const response: StreamResponse = await peer.stream(
        method,
        ended,
        timeoutMs,
        header,
        once(request),
        contextValues,
      );
      passHeaders(response.header, context.responseHeader);
      yield* response.message;
      passHeaders(response.trailer, context.responseTrailer);
    } catch (thrown) {
      throw toCallersError(thrown, method);
    } finally {
      stopped.abort(new ConnectError("the caller stopped reading", Code.Canceled));
    }
  } as ServiceImpl<DescService>[string];
}

async function* once<T>(message: T): AsyncIterable<T> {
  yield message;
}

function requestHeader(context: HandlerContext): HeadersInit | undefined {
  const { idempotencyKey } = requestContext(context.values);
  return idempotencyKey === "" ? undefined : { "idempotency-key": idempotencyKey };
}

function passHeaders(from: Headers, to: Headers): void {
  from.forEach((value, name) => {
    if (name.startsWith("cadre-")) to.set(name, value);
  });
}

/** What the caller is told of a failure of the peer's, or of the way there. */
function toCallersError(thrown: unknown, method: DescMethod): unknown {
  if (!(thrown instanceof ConnectError) || fromConnectError(thrown) !== undefined) return thrown;
  switch (thrown.code) {
    case Code.Unavailable:
      return new AppError("UNAVAILABLE", "the service behind the gateway cannot be reached", {
        cause: thrown,
        retryAfterMs: lostPeerRetryMs,
      });
    case Code.Canceled:
      return new AppError("CANCELLED", "the call was cancelled", { cause: thrown });
    case Code.DeadlineExceeded:
      return new AppError("DEADLINE_EXCEEDED", "the deadline passed before the call was done", { cause: thrown });
    case Code.Unimplemented:
      return new AppError("UNIMPLEMENTED", `${method.name} is not implemented by the service behind the gateway`, {
        cause: thrown,
      });
    default:
      return thrown;
  }
}
