import { AppError } from "../errors/app-error.ts";
import type { Authentication, Authenticator } from "./authenticator.ts";
import { Refusal } from "./refusal.ts";
import { type ServiceCall, type ServiceTokenVerifier, serviceTokenHeader } from "./service-token.ts";

/**
 * Authenticates calls of the mesh by their service token. Where the connection
 * shows a certificate, the token must be of the same service: a stolen token is
 * of no use to another one.
 */
export function createServiceTokenAuthenticator(verifier: ServiceTokenVerifier): Authenticator {
  return {
    authenticate(header, { peerIdentity }) {
      const call = verifier.verify(header.get(serviceTokenHeader) ?? "");
      return call instanceof Promise
        ? call.then((verified) => bindToPeer(verified, peerIdentity))
        : bindToPeer(call, peerIdentity);
    },
  };
}

function bindToPeer(call: ServiceCall, peerIdentity: string | undefined): Authentication {
  if (peerIdentity === undefined || peerIdentity === call.callingService) return call;
  throw new AppError("CALLER_NOT_ALLOWED", "the credential belongs to another service", {
    cause: new Refusal("WRONG_SERVICE", { actor: peerIdentity }),
  });
}
