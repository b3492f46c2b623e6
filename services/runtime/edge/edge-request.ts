import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import { createContextKey } from "@connectrpc/connect";

/** A request of either version of HTTP. */
export type EdgeIncoming = IncomingMessage | Http2ServerRequest;
/** Its response. */
export type EdgeResponse = ServerResponse | Http2ServerResponse;
/** What serves requests. Must not throw; what it throws all the same is logged and answered with 500. */
export type EdgeHandler = (request: EdgeIncoming, response: EdgeResponse) => void;

/** What the edge itself knows of a request. Nothing in it is the caller's word. */
export interface EdgeRequest {
  /** Made here; the caller's `x-request-id` is dropped. */
  readonly requestId: string;
  /** The caller's address: the peer's, or what a named proxy says. */
  readonly source: string;
  /** The caller's trace context, if the edge was told to trust it; else empty. */
  readonly traceparent: string;
}

/** Where interceptors and handlers find it among Connect's context values. */
export const edgeRequestKey = createContextKey<EdgeRequest | undefined>(undefined, { description: "cadre.edge" });

const requests = new WeakMap<EdgeIncoming, EdgeRequest>();

/** Notes what the edge knows of a request. */
export function setEdgeRequest(request: EdgeIncoming, known: EdgeRequest): void {
  requests.set(request, known);
}

/** What the edge knows of a request. Throws a bug for one that did not come through `createEdgeServer`. */
export function edgeRequest(request: EdgeIncoming): EdgeRequest {
  const known = requests.get(request);
  if (known === undefined) throw new TypeError("the request did not come through createEdgeServer");
  return known;
}
