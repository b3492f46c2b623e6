import { generateKeyPairSync, type KeyObject } from "node:crypto";
import type { ServiceName } from "../mesh/mesh.ts";

/** How a service token's header points at the key that proves it. */
export interface KeyProof {
  /** The name of a key that both sides know. */
  readonly kid?: string;
  /** The certificate chain of the key, leaf first, base64 of DER (RFC 7515, 4.1.6). */
  readonly x5c?: readonly string[];
}

/** A service's name with the key that proves it. */
export interface ServiceIdentity {
  readonly name: ServiceName;
  /** The signing key and how it is proven, as of now: a renewed certificate shows here. */
  current(): SigningKey;
}

/** An Ed25519 key that signs service tokens. The same object as long as nothing changed. */
export interface SigningKey {
  readonly privateKey: KeyObject;
  readonly proof: KeyProof;
}

/** Whom a key belongs to. */
export interface ProvenService {
  readonly service: string;
  readonly publicKey: KeyObject;
}

/** Decides which keys speak for which service. */
export interface MeshTrust {
  /** The service that a proof stands for; `undefined` if it is not trusted. */
  resolve(proof: KeyProof): ProvenService | undefined;
}

/** The identities of the services that run in one process. */
export interface LocalAuthority extends MeshTrust {
  /** The identity of a service. Always the same for the same name. */
  identity(name: ServiceName): ServiceIdentity;
}

/**
 * Keys made in memory, for services that share a process: no key leaves it, and
 * each start has new ones.
 */
export function createLocalAuthority(): LocalAuthority {
  const identities = new Map<string, ServiceIdentity>();
  const services = new Map<string, ProvenService>();
  return {
    identity(name) {
      const known = identities.get(name);
      if (known !== undefined) return known;
      const { publicKey, privateKey } = generateKeyPairSync("ed25519");
      const signingKey: SigningKey = { privateKey, proof: { kid: name } };
      const identity: ServiceIdentity = { name, current: () => signingKey };
      identities.set(name, identity);
      services.set(name, { service: name, publicKey });
      return identity;
    },
    resolve: ({ kid, x5c }) => (kid === undefined || x5c !== undefined ? undefined : services.get(kid)),
  };
}
