import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { BoundedMap } from "../cache/bounded-map.ts";
import type { ServiceName } from "../mesh/mesh.ts";
import { readPrivateFile } from "./key-file.ts";
import type { MeshTrust, ProvenService, ServiceIdentity, SigningKey } from "./service-identity.ts";
import { serviceOfCertificate } from "./spiffe-id.ts";

/** Where a service's certificate and key, and the authority that it trusts, are. */
export interface CertificateFiles {
  /** The mesh's authority, PEM; several while it is replaced. */
  readonly authority: string;
  /** The service's certificate, PEM, leaf first. */
  readonly certificate: string;
  /** The key of the certificate, PKCS #8 PEM, for its owner alone. */
  readonly key: string;
}

/** The files of a service in a directory, as the development authority writes them. */
export function certificateFiles(directory: string, service: ServiceName): CertificateFiles {
  return {
    authority: join(directory, "authority.pem"),
    certificate: join(directory, `${service}.pem`),
    key: join(directory, `${service}.key`),
  };
}

/** Files are looked at no more often, so a renewed certificate is used after that time at the latest. */
const lookEveryMs = 10_000;
const maxChain = 3;
const maxKnownLeaves = 1_000;

/**
 * A service's identity by certificate. Ed25519 keys only. Reads the files again
 * when they change, without a restart.
 *
 * @throws Error if the files cannot be read at start, or the certificate is not of that service
 */
export function loadCertificateIdentity(
  name: ServiceName,
  files: CertificateFiles,
  now: () => number = () => performance.now(),
): ServiceIdentity {
  let lookedAt = now();
  let version = versionOf(files.certificate);
  let signingKey = readSigningKey(name, files);
  return {
    name,
    current() {
      if (now() - lookedAt < lookEveryMs) return signingKey;
      lookedAt = now();
      const newest = versionOf(files.certificate);
      if (newest === version) return signingKey;
      try {
        signingKey = readSigningKey(name, files);
        version = newest;
      } catch {
        // Key and certificate are two files: looked at between their renewals,
        // they do not fit. The old pair is still valid; look again next time.
      }
      return signingKey;
    },
  };
}

/**
 * Trusts the certificates that the mesh's authority issued, for the service
 * that their SPIFFE URI names, while they are valid.
 *
 * @param authorities the authority's certificates, PEM
 * @param now milliseconds since the epoch
 */
export function createCertificateTrust(authorities: string, now: () => number = Date.now): MeshTrust {
  const roots = splitPem(authorities).map((pem) => new X509Certificate(pem));
  const known = new BoundedMap<string, ProvenService & { readonly chain: readonly X509Certificate[] }>(maxKnownLeaves);
  return {
    resolve({ x5c, kid }) {
      if (x5c === undefined || kid !== undefined || x5c.length === 0 || x5c.length > maxChain) return undefined;
      const cacheKey = x5c.join(" ");
      let proven = known.get(cacheKey);
      if (proven === undefined) {
        proven = prove(x5c, roots);
        if (proven === undefined) return undefined;
        known.set(cacheKey, proven);
      }
      return proven.chain.every((certificate) => isValidAt(certificate, now())) ? proven : undefined;
    },
  };
}

function prove(x5c: readonly string[], roots: readonly X509Certificate[]) {
  const chain: X509Certificate[] = [];
  try {
    for (const der of x5c) chain.push(new X509Certificate(Buffer.from(der, "base64")));
  } catch {
    // Not certificates: whoever sent them proves nothing.
    return undefined;
  }
  const [leaf, ...intermediates] = chain;
  if (leaf === undefined || leaf.ca || leaf.publicKey.asymmetricKeyType !== "ed25519") return undefined;
  let child = leaf;
  for (const issuer of intermediates) {
    if (!issuer.ca || !isIssuedBy(child, issuer)) return undefined;
    child = issuer;
  }
  const root = roots.find((candidate) => isIssuedBy(child, candidate));
  const service = serviceOfCertificate(leaf);
  if (root === undefined || service === undefined) return undefined;
  return { service, publicKey: leaf.publicKey, chain: [...chain, root] };
}

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

function isValidAt(certificate: X509Certificate, ms: number): boolean {
  return certificate.validFromDate.getTime() <= ms && ms < certificate.validToDate.getTime();
}

function readSigningKey(name: ServiceName, files: CertificateFiles): SigningKey {
  const chain = splitPem(readFileSync(files.certificate, "utf8")).map((pem) => new X509Certificate(pem));
  const [leaf] = chain;
  const privateKey: KeyObject = createPrivateKey(readPrivateFile(files.key));
  if (leaf === undefined || !leaf.checkPrivateKey(privateKey)) {
    throw new Error(`${files.key} is not the key of ${files.certificate}`);
  }
  if (serviceOfCertificate(leaf) !== name) throw new Error(`${files.certificate} is not of the service ${name}`);
  return { privateKey, proof: { x5c: chain.map((certificate) => certificate.raw.toString("base64")) } };
}

function versionOf(file: string): string {
  const { mtimeMs, ino } = statSync(file);
  return `${ino}:${mtimeMs}`;
}

function splitPem(text: string): string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
}
