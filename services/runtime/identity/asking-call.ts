import { type CallOptions, createContextValues } from "@connectrpc/connect";
import { type RequestContext, requestContextKey } from "../rpc/request-context.ts";
import type { IncomingCall } from "./authenticator.ts";

/** The options of a question about a call whose principal is not known yet: its request id, trace and signal. */
export function onBehalfOfCall(call: IncomingCall): CallOptions {
  const context: RequestContext = {
    requestId: call.requestId,
    traceparent: call.traceparent,
    source: call.source,
    deadline: Number.POSITIVE_INFINITY,
    signal: call.signal,
    principal: undefined,
    callingService: undefined,
    idempotencyKey: "",
  };
  return { signal: call.signal, contextValues: createContextValues().set(requestContextKey, context) };
}
