import { isId, newId } from "../ids/id.ts";

/**
 * What a service tells its peer of the request that it calls for. Only another
 * service can have told it: without a service token no call of the mesh is
 * served, and the edge takes no `x-cadre-` header from a stranger.
 */
export interface ToldRequest {
  /** `req_…`, kept over all hops. */
  readonly requestId: string;
  /** The W3C trace context; empty without one. */
  readonly traceparent: string;
  /** The address that the request came from; empty if it is not known. */
  readonly source: string;
}

/** One header for all of it: each header of a call costs 2 to 4 µs over a wire. */
export const requestHeader = "x-cadre-request";

/** Stands for what is empty. */
const none = "-";

/** Writes a request for `requestHeader`: its id, its trace context and its source, separated by blanks. */
export function encodeToldRequest({ requestId, traceparent, source }: ToldRequest): string {
  return `${requestId} ${traceparent === "" ? none : traceparent} ${source === "" ? none : source}`;
}

/**
 * What a call's headers tell of the request. `traceparent`, where a span lies
 * between, goes before; what is missing or malformed is as if nothing was told.
 */
export function readToldRequest(header: Headers): ToldRequest {
  const text = header.get(requestHeader) ?? "";
  const idEnd = text.indexOf(" ");
  const traceEnd = text.indexOf(" ", idEnd + 1);
  const requestId = text.slice(0, Math.max(0, idEnd));
  const traceparent = header.get("traceparent") ?? text.slice(idEnd + 1, Math.max(0, traceEnd));
  const source = traceEnd < 0 ? none : text.slice(traceEnd + 1);
  return {
    requestId: isId("req", requestId) ? requestId : newId("req"),
    traceparent: traceparent === none ? "" : traceparent,
    source: source === none ? "" : source,
  };
}
