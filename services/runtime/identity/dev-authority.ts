import { createPrivateKey, X509Certificate } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { ServiceName } from "../mesh/mesh.ts";
import { type CertificateFiles, certificateFiles } from "./certificate-identity.ts";
import type { IssuedCertificate } from "./dev-certificate.ts";
import { readPrivateFile, replacePrivateFile } from "./key-file.ts";
import { serviceOfCertificate, spiffeId } from "./spiffe-id.ts";

export interface DevAuthorityOptions {
  /** Where the authority and all certificates are written, for example `<data>/mesh`. */
  readonly directory: string;
  readonly services: readonly ServiceName[];
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

const hourMs = 3_600_000;
const authorityLifetimeMs = 365 * 24 * hourMs;
const certificateLifetimeMs = 24 * hourMs;
/** A certificate is renewed once less than that is left of its 24 hours. */
const renewBeforeMs = 16 * hourMs;
/** So that a machine whose clock is a little behind takes a new one. */
const backdateMs = 5 * 60_000;

/**
 * Makes or renews a development authority and a certificate for each service,
 * with Ed25519 keys, in files for their owner alone. What is still good stays
 * as it is, so calling it again changes nothing; call it at start and every few
 * hours. Not for production: the authority's key lies beside its certificates.
 */
export async function ensureDevCertificates(
  options: DevAuthorityOptions,
): Promise<ReadonlyMap<ServiceName, CertificateFiles>> {
  const nowMs = (options.now ?? Date.now)();
  const authority = await ensureAuthority(options.directory, nowMs);
  const issuer = new X509Certificate(authority.certificate);
  const result = new Map<ServiceName, CertificateFiles>();
  for (const service of options.services) {
    const files = certificateFiles(options.directory, service);
    result.set(service, files);
    if (isGood(files, service, issuer, nowMs)) continue;
    const { issueCertificate } = await import("./dev-certificate.ts");
    const validity = { fromMs: nowMs - backdateMs, toMs: nowMs + certificateLifetimeMs };
    const issued = await issueCertificate(authority, service, spiffeId(service), validity);
    replacePrivateFile(files.key, issued.key);
    replacePrivateFile(files.certificate, issued.certificate);
  }
  return result;
}

async function ensureAuthority(directory: string, nowMs: number): Promise<IssuedCertificate> {
  const certificateFile = join(directory, "authority.pem");
  const keyFile = join(directory, "authority.key");
  if (existsSync(certificateFile) && existsSync(keyFile)) {
    const found = { certificate: readFileSync(certificateFile, "utf8"), key: readPrivateFile(keyFile) };
    // Its certificates must not outlive it.
    if (isPair(found, nowMs + 2 * certificateLifetimeMs)) return found;
  }
  const { makeAuthority } = await import("./dev-certificate.ts");
  const made = await makeAuthority({ fromMs: nowMs - backdateMs, toMs: nowMs + authorityLifetimeMs });
  replacePrivateFile(keyFile, made.key);
  replacePrivateFile(certificateFile, made.certificate);
  return made;
}

function isGood(files: CertificateFiles, service: ServiceName, issuer: X509Certificate, nowMs: number): boolean {
  if (!existsSync(files.certificate) || !existsSync(files.key)) return false;
  const found = { certificate: readFileSync(files.certificate, "utf8"), key: readPrivateFile(files.key) };
  const certificate = new X509Certificate(found.certificate);
  return (
    isPair(found, nowMs + renewBeforeMs) &&
    serviceOfCertificate(certificate) === service &&
    certificate.verify(issuer.publicKey)
  );
}

/** Whether key and certificate fit, and the certificate holds until then. A crash between the two files parts them. */
function isPair({ certificate, key }: IssuedCertificate, untilMs: number): boolean {
  const parsed = new X509Certificate(certificate);
  return parsed.validToDate.getTime() > untilMs && parsed.checkPrivateKey(createPrivateKey(key));
}
