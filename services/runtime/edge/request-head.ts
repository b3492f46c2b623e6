import type { BlockList } from "node:net";
import { isIP, isIPv6 } from "node:net";
import { plainAddress } from "./connection-gate.ts";
import type { EdgeLimits } from "./edge-limits.ts";
import type { EdgeIncoming } from "./edge-request.ts";

/** A request whose head no handler may see. */
export interface HeadRefusal {
  readonly status: 400 | 404 | 431;
  readonly detail: string;
}

/** Fields of which a second one is an attempt to be read differently by two readers. */
const singletons = new Set([
  "host",
  "authorization",
  "content-type",
  "content-length",
  "connect-timeout-ms",
  "grpc-timeout",
]);

const authorityPattern = /^(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9._-]{0,252}))(?::\d{1,5})?$/i;

/**
 * Checks the head of a request: number and size of its fields, one valid
 * authority, and a target in origin form.
 */
export function checkHead(
  request: EdgeIncoming,
  limits: Pick<EdgeLimits, "maxHeaders" | "maxHeaderBytes" | "maxHeaderFieldBytes">,
): HeadRefusal | undefined {
  const raw = request.rawHeaders;
  let bytes = 0;
  let fields = 0;
  const seen = new Set<string>();
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index] ?? "";
    const size = name.length + (raw[index + 1]?.length ?? 0);
    if (name.startsWith(":")) continue;
    fields += 1;
    bytes += size;
    if (size > limits.maxHeaderFieldBytes) return { status: 431, detail: "a header field is too large" };
    const lower = name.toLowerCase();
    if (!singletons.has(lower)) continue;
    if (seen.has(lower)) return { status: 400, detail: `more than one ${lower}` };
    seen.add(lower);
  }
  if (fields > limits.maxHeaders) return { status: 431, detail: "too many header fields" };
  if (bytes > limits.maxHeaderBytes) return { status: 431, detail: "the header is too large" };

  const authority = authorityOf(request);
  if (authority === undefined || !authorityPattern.test(authority)) return { status: 400, detail: "no valid host" };
  const target = request.url ?? "";
  if (!target.startsWith("/") && !(target === "*" && request.method === "OPTIONS")) {
    return { status: 404, detail: "not a path" };
  }
  return undefined;
}

/** The one authority of a request; `undefined` if there is none, or two that differ. */
export function authorityOf(request: EdgeIncoming): string | undefined {
  const { host } = request.headers;
  const authority = request.headers[":authority"];
  if (typeof authority !== "string") return host;
  return host === undefined || host === authority ? authority : undefined;
}

/** Fields that only our own processes may say to each other, or that proxies say. Dropped. */
const internal = new Set([
  "x-service-token",
  "x-user-id",
  "x-request-id",
  "forwarded",
  "x-real-ip",
  "x-client-ip",
  "traceparent",
  "tracestate",
  "baggage",
]);

/**
 * Takes out of a request what a stranger may not say: `x-cadre-*`,
 * `x-forwarded-*`, service tokens, request ids and trace contexts. `x-tenant-id`
 * stays: it grants nothing, and authentication refuses one that differs from
 * the credential's org.
 */
export function dropInternalFields(headers: EdgeIncoming["headers"]): void {
  for (const name in headers) {
    if (internal.has(name) || name.startsWith("x-cadre-") || name.startsWith("x-forwarded-")) delete headers[name];
  }
}

/**
 * The caller's address: the peer's; or behind named proxies the last address in
 * `X-Forwarded-For` that is not one of theirs, for what stands before it is
 * anybody's word.
 */
export function sourceAddress(request: EdgeIncoming, proxies: BlockList): string {
  const peer = plainAddress(request.socket.remoteAddress);
  const isProxy = (address: string) => isIP(address) !== 0 && proxies.check(address, isIPv6(address) ? "ipv6" : "ipv4");
  const forwarded = request.headers["x-forwarded-for"];
  if (forwarded === undefined || !isProxy(peer)) return peer;
  const hops = String(forwarded)
    .split(",")
    .map((hop) => plainAddress(hop.trim()));
  let source = peer;
  for (const hop of hops.reverse()) {
    if (isIP(hop) === 0) break;
    source = hop;
    if (!isProxy(hop)) break;
  }
  return source;
}
