import { createPrivateKey, createPublicKey, hkdfSync, type KeyObject, randomUUID, timingSafeEqual } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { type Principal, PrincipalKind, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { type JWTPayload, jwtVerify, SignJWT } from "jose";
import { decodePrincipal, encodePrincipal } from "../../runtime/identity/principal.ts";
import { refused } from "../../runtime/identity/refusal.ts";
import { refusalOf } from "../../runtime/identity/service-token.ts";

// Invariants:
// 1. A token is good for the bytes that it was made for, and for nothing else:
//    whoever reads it off the bus can only ask for the same run once more.
// 2. No door takes it: it has an issuer, an audience and a type of its own.
// 3. It names who asks; what they may do is asked for when it is read.

/** A token for one request, and when it ends. */
export interface RunRequestToken {
  readonly token: string;
  /** In milliseconds since the epoch. */
  readonly expiresAtMs: number;
}

/** Makes and reads the tokens of requests that go through the bus. */
export interface RunRequestTokens {
  /** @param sha256 of the request's bytes */
  sign(principal: Principal, sha256: Uint8Array): Promise<RunRequestToken>;
  /**
   * Whom a token was made for; whether they may still act is not known yet.
   *
   * @throws AppError UNAUTHENTICATED with the true reason as its cause
   */
  verify(token: string, sha256: Uint8Array): Promise<Principal>;
}

const algorithm = "EdDSA";
const tokenType = "run-request+jwt";
const issuer = "urn:cadre:credentials";
const audience = "agent.runs.requested.v1";
/** A request may wait so long for whoever starts it. */
const lifetimeSeconds = 900;
/** Clocks of two machines may differ that much. */
const skewSeconds = 60;
const maxTokenCharacters = 8_192;
const keyPurpose = "cadre run request token v1";
/** An Ed25519 private key in PKCS #8 is this and its 32 bytes (RFC 8410, 7). */
const pkcs8Prefix = Buffer.from("302e020100300506032b657004220420", "hex");

/**
 * @param secret that all processes of credentials share; the signing key is derived from it
 * @param now milliseconds since the epoch
 */
export function createRunRequestTokens(secret: Uint8Array, now: () => number = Date.now): RunRequestTokens {
  const privateKey = keyOf(secret);
  const publicKey = createPublicKey(privateKey);
  return {
    async sign(principal, sha256) {
      const issuedAt = Math.floor(now() / 1_000);
      const token = await new SignJWT({
        org_id: principal.orgId,
        principal: encodePrincipal(whoOf(principal)),
        sha256: Buffer.from(sha256).toString("base64url"),
      })
        .setProtectedHeader({ alg: algorithm, typ: tokenType })
        .setIssuer(issuer)
        .setAudience(audience)
        .setSubject(principal.subject)
        .setJti(randomUUID())
        .setIssuedAt(issuedAt)
        .setExpirationTime(issuedAt + lifetimeSeconds)
        .sign(privateKey);
      return { token, expiresAtMs: (issuedAt + lifetimeSeconds) * 1_000 };
    },

    async verify(token, sha256) {
      if (token.length > maxTokenCharacters) throw refused("TOO_LONG");
      const { payload } = await jwtVerify(token, publicKey, {
        algorithms: [algorithm],
        typ: tokenType,
        issuer,
        audience,
        requiredClaims: ["exp", "iat", "iss", "aud", "sub", "jti"],
        maxTokenAge: lifetimeSeconds,
        clockTolerance: skewSeconds,
        currentDate: new Date(now()),
      }).catch((thrown: unknown) => {
        throw refused(refusalOf(thrown), { cause: thrown });
      });
      const principal = principalOf(payload);
      if (!isFor(payload, sha256)) {
        throw refused("CLAIM_INVALID", { actor: principal.subject, orgId: principal.orgId });
      }
      return principal;
    },
  };
}

function keyOf(secret: Uint8Array): KeyObject {
  const seed = Buffer.from(hkdfSync("sha256", secret, "", keyPurpose, 32));
  return createPrivateKey({ key: Buffer.concat([pkcs8Prefix, seed]), format: "der", type: "pkcs8" });
}

/** Who it is: what a key carries is looked up when the token is read. */
function whoOf(principal: Principal): Principal {
  if (principal.kind !== PrincipalKind.KEY) return principal;
  const { kind, subject, orgId, role } = principal;
  return create(PrincipalSchema, { kind, subject, orgId, role });
}

function principalOf(payload: JWTPayload): Principal {
  const claim = payload["principal"];
  if (typeof claim !== "string") throw refused("CLAIM_MISSING");
  try {
    return decodePrincipal(claim);
  } catch (cause) {
    throw refused("CLAIM_INVALID", { cause });
  }
}

function isFor(payload: JWTPayload, sha256: Uint8Array): boolean {
  const claim = payload["sha256"];
  const signed = Buffer.from(typeof claim === "string" ? claim : "", "base64url");
  return signed.length === sha256.length && timingSafeEqual(signed, sha256);
}
