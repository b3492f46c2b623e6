import {
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type DescService,
  hasOption,
  type Message,
} from "@bufbuild/protobuf";
import { event_stream } from "@cadre/gen/cadre/options/v1/options_pb";
import {
  type CallOptions,
  type Client,
  Code,
  ConnectError,
  type HandlerContext,
  type ServiceImpl,
} from "@connectrpc/connect";
import { AppError } from "../../runtime/errors/app-error.ts";
import { fromConnectError } from "../../runtime/errors/failure.ts";
import type { Implementation } from "../../runtime/rpc/implementation.ts";
import { onBehalfOf, requestContext } from "../../runtime/rpc/request-context.ts";
import { isServerStreaming, isUnary } from "../contract/method-kind.ts";

/** After how long it is worth to try a peer again that could not be reached. */
const lostPeerRetryMs = 1_000;

/** When streams end because the process does; a caller goes on with another one. */
export interface StreamEndings {
  /** Streams of events, which are resumed without a loss. */
  readonly events: AbortSignal;
  /** All others, which get a little longer to come to their own end. */
  readonly others: AbortSignal;
}

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
 * @param peer a client of the service, its interceptors adding identity and trace
 * @param endings when streams are answered SHUTTING_DOWN; never unless given
 */
export function forwardService(
  service: DescService,
  peer: Client<DescService>,
  endings?: StreamEndings,
): Implementation {
  const handlers: Record<string, AnyHandler> = {};
  for (const method of service.methods) handlers[method.localName] = forwardMethod(method, peer, endings);
  return { service, handlers: handlers as ServiceImpl<DescService> };
}

/** A handler whose message types are those of its method, whatever they are. */
type AnyHandler = (request: Message, context: HandlerContext) => unknown;

function forwardMethod(method: DescMethod, peer: Client<DescService>, endings: StreamEndings | undefined): AnyHandler {
  const call = (peer as Readonly<Record<string, unknown>>)[method.localName];
  if (isUnary(method)) return forwardUnary(method, call as UnaryCall);
  if (isServerStreaming(method)) {
    const ending = hasOption(method, event_stream) ? endings?.events : endings?.others;
    return forwardServerStream(method, call as ServerStreamCall, ending);
  }
  throw new TypeError(`${method.parent.typeName}.${method.name} takes a stream and cannot be forwarded`);
}

type UnaryCall = (request: Message, options: CallOptions) => Promise<Message>;

function forwardUnary(method: DescMethodUnary, call: UnaryCall): AnyHandler {
  return async (request, context) => {
    try {
      return await call(request, toCallOptions(context));
    } catch (thrown) {
      throw toCallersError(thrown, method);
    }
  };
}

type ServerStreamCall = (request: Message, options: CallOptions) => AsyncIterable<Message>;

function forwardServerStream(
  method: DescMethodServerStreaming,
  call: ServerStreamCall,
  ending: AbortSignal | undefined,
): AnyHandler {
  return async function* (request, context) {
    const options = toCallOptions(context);
    // Connect's transports do not pass on that a reader stopped; the signal does.
    const stopped = new AbortController();
    const signals = [options.signal, ending, stopped.signal].filter((signal) => signal !== undefined);
    try {
      yield* call(request, { ...options, signal: AbortSignal.any(signals) });
    } catch (thrown) {
      if (ending?.aborted === true) throw new AppError("SHUTTING_DOWN", "the process is shutting down");
      throw toCallersError(thrown, method);
    } finally {
      stopped.abort(new ConnectError("the caller stopped reading", Code.Canceled));
    }
  };
}

function toCallOptions(context: HandlerContext): CallOptions {
  const request = requestContext(context.values);
  const options: CallOptions = {
    ...onBehalfOf(request),
    onHeader: (header) => passHeaders(header, context.responseHeader),
    onTrailer: (trailer) => passHeaders(trailer, context.responseTrailer),
  };
  if (request.idempotencyKey !== "") options.headers = { "idempotency-key": request.idempotencyKey };
  return options;
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
