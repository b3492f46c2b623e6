import { createContextKey } from "@connectrpc/connect";
import { X509Certificate } from "node:crypto";
import type { ServiceName } from "./mesh.ts";

/**
 * The service that a call came from, as its certificate proves; `undefined`
 * without mutual TLS. Set by the mesh's server before any interceptor runs.
 */
export const peerIdentityKey = createContextKey<string | undefined>(undefined, { description: "cadre.peer" });

const prefix = "spiffe://cadre/";

/** The name that a service's certificate carries as its URI, for example `spiffe://cadre/tools`. */
export function spiffeId(service: ServiceName): string {
  return prefix + service;
}

/** One of the names that Node.js lists; those with special characters are quoted as in JSON. */
const listedName = /(?:^|, )([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^",]*)/y;

/**
 * The service of a certificate: the path of its only URI. `undefined` if it has
 * none, several, or one of another trust domain.
 *
 * @param der the certificate, already verified against the mesh's authority
 */
export function certificateService(der: Uint8Array): string | undefined {
  const names = new X509Certificate(der).subjectAltName ?? "";
  const uris: string[] = [];
  listedName.lastIndex = 0;
  while (listedName.lastIndex < names.length) {
    const match = listedName.exec(names);
    if (match === null) return undefined;
    if (match[1] === "URI") uris.push(match[2] ?? "");
  }
  const [uri] = uris;
  if (uri === undefined || uris.length !== 1 || !uri.startsWith(prefix)) return undefined;
  const service = uri.slice(prefix.length);
  return /^[a-z][a-z0-9-]*$/.test(service) ? service : undefined;
}
