import { readFileSync, statSync } from "node:fs";
import type { TlsMaterial, TlsSource } from "../mesh/tls.ts";
import type { CertificateFiles } from "./certificate-identity.ts";
import { readPrivateFile } from "./key-file.ts";

/** A renewed certificate is used by new connections after that time at the latest. */
const lookEveryMs = 10_000;

/**
 * The mesh's TLS from a service's files, read again when they change, without
 * a restart. A change that cannot be read is tried again; until then the old
 * material holds.
 *
 * @param onFailure told of a change that could not be read
 * @throws Error if the files cannot be read at start
 */
export function watchCertificateTls(
  files: CertificateFiles,
  onFailure: (thrown: unknown) => void,
): TlsSource & { stop(): void } {
  const listeners = new Set<(material: TlsMaterial) => void>();
  let version = versionOf(files);
  let material = read(files);
  const timer = setInterval(() => {
    try {
      const newest = versionOf(files);
      if (newest === version) return;
      material = read(files);
      version = newest;
      for (const listener of listeners) listener(material);
    } catch (thrown) {
      onFailure(thrown);
    }
  }, lookEveryMs);
  timer.unref();
  return {
    current: () => material,
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    stop: () => clearInterval(timer),
  };
}

function read(files: CertificateFiles): TlsMaterial {
  return {
    authority: readFileSync(files.authority, "utf8"),
    certificate: readFileSync(files.certificate, "utf8"),
    privateKey: readPrivateFile(files.key),
  };
}

function versionOf(files: CertificateFiles): string {
  return [files.authority, files.certificate, files.key].map((file) => statSync(file).mtimeMs).join(" ");
}
