import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import {
  type CallOptions,
  type ContextValues,
  createContextKey,
  createContextValues,
  type HandlerContext,
} from "@connectrpc/connect";
import { AppError } from "../errors/app-error.ts";

/**
 * What is known of the request that is being served. Each interceptor fills in
 * its part; what calls on behalf of the request hands it on.
 */
export interface RequestContext {
  /** The request's id, `req_…`; kept over all hops. */
  readonly requestId: string;
  /** The W3C trace context of the server's span, for what the request calls. Empty without tracing. */
  readonly traceparent: string;
  /** Where the call came from: an address at the edge, the calling service in the mesh. */
  readonly source: string;
  /** When the call must have ended, in milliseconds since the epoch. Infinity for none. */
  deadline: number;
  /** The signal of the request: aborts on cancellation, disconnect and deadline. */
  signal: AbortSignal;
  /** Who acts; set by the authentication interceptor. */
  principal: Principal | undefined;
  /** The service that called, in the mesh. */
  callingService: string | undefined;
  /** The caller's `Idempotency-Key`, checked by the limits interceptor; empty for none. */
  idempotencyKey: string;
}

/** Where a request's context is found among Connect's context values. */
export const requestContextKey = createContextKey<RequestContext | undefined>(undefined, {
  description: "cadre.request",
});

/** The request's context. Throws a bug if the interceptors have not run. */
export function requestContext(values: ContextValues): RequestContext {
  const context = values.get(requestContextKey);
  if (context === undefined) throw new TypeError("no request context: the telemetry interceptor did not run");
  return context;
}

/** The principal that a handler acts for. Throws UNAUTHENTICATED if there is none. */
export function requirePrincipal(context: HandlerContext): Principal {
  const { principal } = requestContext(context.values);
  if (principal === undefined) throw new AppError("UNAUTHENTICATED", "authentication is required");
  return principal;
}

/** What a call to a peer leaves for the way back, in milliseconds. */
const hopReserveMs = 50;

/**
 * The options of a call that a handler makes on behalf of its request: the
 * same principal, request id and trace; ended with the request, and given the
 * rest of its deadline less 50 ms, so that the answer still finds its caller.
 */
export function onBehalfOf(context: RequestContext, signal: AbortSignal = context.signal): CallOptions {
  const options: CallOptions = { signal, contextValues: createContextValues().set(requestContextKey, context) };
  if (context.deadline !== Number.POSITIVE_INFINITY) {
    options.timeoutMs = Math.max(1, Math.round(context.deadline - Date.now() - hopReserveMs));
  }
  return options;
}
