import type { X509Certificate } from "node:crypto";
import type { ServiceName } from "../mesh/mesh.ts";

const prefix = "spiffe://cadre/";

/** The name that a service's certificate carries as its URI, for example `spiffe://cadre/tools` (SPIFFE-ID, 2). */
export function spiffeId(service: ServiceName): string {
  return prefix + service;
}

/**
 * The service that a certificate names: the path of its only URI. `undefined`
 * if it has none, several, or one of another trust domain.
 *
 * @param certificate already verified against the mesh's authority
 */
export function serviceOfCertificate(certificate: X509Certificate): string | undefined {
  const names = certificate.subjectAltName ?? "";
  // Node quotes a name that holds a comma or a quote; none of ours does, so
  // such a certificate is not one that was made for the mesh.
  if (names.includes('"')) return undefined;
  const uris = names.split(", ").filter((name) => name.startsWith("URI:"));
  const [uri] = uris;
  if (uri === undefined || uris.length !== 1) return undefined;
  return /^URI:spiffe:\/\/cadre\/([a-z][a-z0-9-]{0,62})$/.exec(uri)?.[1];
}
