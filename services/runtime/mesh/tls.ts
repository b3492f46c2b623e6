import { X509Certificate } from "node:crypto";
import type { SecureContextOptions } from "node:tls";
import { type ChannelCredentials, experimental, ServerCredentials } from "@grpc/grpc-js";
import { serviceOfCertificate, spiffeId } from "../identity/spiffe-id.ts";
import type { ServiceName } from "./mesh.ts";

/** A service's certificate and whom it trusts, as PEM texts. */
export interface TlsMaterial {
  /** The mesh's authority; nothing else is trusted. */
  readonly authority: string;
  /** The service's certificate, with its chain; its URI is `spiffe://cadre/<service>`. */
  readonly certificate: string;
  readonly privateKey: string;
}

/** Where certificates come from, and are replaced without a restart. */
export interface TlsSource {
  current(): TlsMaterial;
  /** Calls back with each replacement. Returns what ends that. */
  onChange(listener: (material: TlsMaterial) => void): () => void;
}

/** A source that never changes. */
export function fixedTls(material: TlsMaterial): TlsSource {
  return { current: () => material, onChange: () => () => {} };
}

/**
 * Credentials of a server that lets only peers in which the authority vouches
 * for. New connections use the newest certificate. TLS 1.3.
 */
export function serverCredentials(source: TlsSource): ServerCredentials & { close(): void } {
  return new ReloadedServerCredentials(source);
}

class ReloadedServerCredentials extends ServerCredentials {
  readonly close: () => void;

  constructor(source: TlsSource) {
    super({ requestCert: true, rejectUnauthorized: true }, contextOptions(source.current()));
    this.close = source.onChange((material) => this.updateSecureContextOptions(contextOptions(material)));
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

function contextOptions({ authority, certificate, privateKey }: TlsMaterial): SecureContextOptions {
  return { ca: authority, cert: certificate, key: privateKey, minVersion: "TLSv1.3" };
}

/**
 * Credentials of a client: it shows its certificate, and talks only to a server
 * whose certificate names the peer, wherever it runs.
 */
export function channelCredentials(source: TlsSource, peer: ServiceName): ChannelCredentials {
  const provider = certificateProvider(source);
  return experimental.createCertificateProviderChannelCredentials(provider, provider, {
    checkServerIdentity: (_host, certificate) =>
      serviceOfCertificate(new X509Certificate(certificate.raw)) === peer
        ? undefined
        : new Error(`the peer's certificate is not of ${spiffeId(peer)}`),
  });
}

function certificateProvider(source: TlsSource): experimental.CertificateProvider {
  const authorityListeners = new Map<experimental.CaCertificateUpdateListener, () => void>();
  const identityListeners = new Map<experimental.IdentityCertificateUpdateListener, () => void>();
  return {
    addCaCertificateListener(listener) {
      const tell = ({ authority }: TlsMaterial): void => listener({ caCertificate: Buffer.from(authority) });
      authorityListeners.set(listener, source.onChange(tell));
      tell(source.current());
    },
    removeCaCertificateListener(listener) {
      authorityListeners.get(listener)?.();
      authorityListeners.delete(listener);
    },
    addIdentityCertificateListener(listener) {
      const tell = ({ certificate, privateKey }: TlsMaterial): void =>
        listener({ certificate: Buffer.from(certificate), privateKey: Buffer.from(privateKey) });
      identityListeners.set(listener, source.onChange(tell));
      tell(source.current());
    },
    removeIdentityCertificateListener(listener) {
      identityListeners.get(listener)?.();
      identityListeners.delete(listener);
    },
  };
}
