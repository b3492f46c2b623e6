import { type EdgeIncoming, edgeRequest } from "../../runtime/edge/edge-request.ts";

/**
 * The header of a request as interceptors read it, with the id that the edge
 * gave it.
 */
export function toHeaders(request: EdgeIncoming): Headers {
  const headers = new Headers();
  for (const name in request.headers) {
    const value = request.headers[name];
    if (value === undefined || name.startsWith(":")) continue;
    if (typeof value === "string") headers.append(name, value);
    else for (const item of value) headers.append(name, item);
  }
  headers.set("x-request-id", edgeRequest(request).requestId);
  return headers;
}
