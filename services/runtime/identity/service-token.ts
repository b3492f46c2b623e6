import { randomUUID } from "node:crypto";
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { decodeProtectedHeader, errors, jwtVerify, SignJWT } from "jose";
import { BoundedMap } from "../cache/bounded-map.ts";
import { AppError } from "../errors/app-error.ts";
import type { ServiceName } from "../mesh/mesh.ts";
import { decodePrincipal, encodePrincipal } from "./principal.ts";
import { Refusal, type RefusalCode, refused } from "./refusal.ts";
import type { KeyProof, MeshTrust, ProvenService, ServiceIdentity, SigningKey } from "./service-identity.ts";

// Invariants:
// 1. A token is for one called service (`aud`) and from one calling service
//    (`iss` and `sub`, both the one that its key is proven for).
// 2. Whom the call is made for is a claim of its own, so that access is decided
//    on the end user and not on the service in between.
// 3. Only allowed tokens are remembered, and no longer than they are valid. One
//    is found by the end of its signature and believed only if it is the same
//    to the last character, so a forged one never passes for a true one. How
//    long that takes tells nothing to whoever does not have the signature.

/** The header that carries a service token. */
export const serviceTokenHeader = "x-cadre-service-token";

const algorithm = "EdDSA";
const tokenType = "svc+jwt";
const principalClaim = "principal";
const lifetimeMs = 300_000;
/** A cached token is used until so long before its end. */
const renewBeforeMs = 60_000;
/** Clocks of two machines may differ that much. */
const skewSeconds = 60;
/** A principal's scopes and tools are bounded to 2 KiB where keys are issued; with a certificate chain it stays below. */
const maxTokenCharacters = 16_384;
const maxCached = 10_000;
/** So many characters of a signature find its token: 192 of its bits. A hash of the whole would cost 2 to 4 µs a call. */
const lookupCharacters = 32;

/** Makes the tokens that one service calls another with. */
export interface ServiceTokenSigner {
  /** A token for a call on behalf of a principal, or of the service itself for `undefined`. Valid for 1 to 5 minutes. */
  token(principal: Principal | undefined): string | Promise<string>;
}

interface SignedToken {
  readonly text: string;
  readonly key: SigningKey;
  readonly issuedAtMs: number;
}

/**
 * Signs tokens for one audience. A signature costs a third of a call, so a
 * token is used again for the same principal, until a minute before its end.
 *
 * @param now milliseconds since the epoch
 */
export function createServiceTokenSigner(
  identity: ServiceIdentity,
  audience: ServiceName,
  now: () => number = Date.now,
): ServiceTokenSigner {
  // Principals of requests are frozen and shared, so the object itself finds
  // its token; one read back from a store is found by its bytes.
  const byObject = new WeakMap<object, SignedToken>();
  const byBytes = new BoundedMap<string, SignedToken>(maxCached);
  const isUsable = (token: SignedToken | undefined): token is SignedToken => {
    if (token === undefined || token.key !== identity.current()) return false;
    // One of before the clock was set back would be refused until the clock is there again.
    const ageMs = now() - token.issuedAtMs;
    return ageMs >= 0 && ageMs < lifetimeMs - renewBeforeMs;
  };

  async function sign(claim: string): Promise<SignedToken> {
    const key = identity.current();
    const issuedAtMs = now();
    const jwt = new SignJWT(claim === "" ? {} : { [principalClaim]: claim })
      .setProtectedHeader({ alg: algorithm, typ: tokenType, ...toHeader(key.proof) })
      .setIssuer(identity.name)
      .setSubject(identity.name)
      .setAudience(audience)
      .setJti(randomUUID())
      .setIssuedAt(Math.floor(issuedAtMs / 1_000))
      .setExpirationTime(Math.floor((issuedAtMs + lifetimeMs) / 1_000));
    return { text: await jwt.sign(key.privateKey), key, issuedAtMs };
  }

  return {
    token(principal) {
      const shared = principal !== undefined && Object.isFrozen(principal) ? principal : undefined;
      const found = shared === undefined ? undefined : byObject.get(shared);
      if (isUsable(found)) return found.text;
      const claim = principal === undefined ? "" : encodePrincipal(principal);
      const equal = byBytes.get(claim);
      if (isUsable(equal)) {
        if (shared !== undefined) byObject.set(shared, equal);
        return equal.text;
      }
      return sign(claim).then((token) => {
        byBytes.set(claim, token);
        if (shared !== undefined) byObject.set(shared, token);
        return token.text;
      });
    },
  };
}

/** What a service token proves. */
export interface ServiceCall {
  readonly callingService: string;
  /** Whom the call is made for; `undefined` if for the service itself. Frozen. */
  readonly principal: Principal | undefined;
}

/** Checks the tokens that a service is called with. */
export interface ServiceTokenVerifier {
  /**
   * What a token proves, at once if it was seen before.
   *
   * @throws AppError UNAUTHENTICATED if it is not valid or for another service, UNAVAILABLE if it is not valid now
   */
  verify(token: string): ServiceCall | Promise<ServiceCall>;
}

interface VerifiedCall extends ServiceCall {
  readonly token: string;
  readonly expiresAtMs: number;
}

/**
 * Verifies tokens for one service. Allowed ones are remembered until they end,
 * at most 10,000.
 *
 * @param now milliseconds since the epoch
 */
export function createServiceTokenVerifier(
  audience: ServiceName,
  trust: MeshTrust,
  now: () => number = Date.now,
): ServiceTokenVerifier {
  const allowed = new BoundedMap<string, VerifiedCall>(maxCached);

  async function check(token: string): Promise<ServiceCall> {
    const proven = prove(trust, token);
    const { payload } = await jwtVerify(token, proven.publicKey, {
      algorithms: [algorithm],
      typ: tokenType,
      audience,
      issuer: proven.service,
      subject: proven.service,
      requiredClaims: ["iss", "sub", "aud", "jti", "iat", "exp"],
      maxTokenAge: lifetimeMs / 1_000,
      clockTolerance: skewSeconds,
      currentDate: new Date(now()),
    }).catch((thrown: unknown) => {
      throw refusalOfToken(thrown, proven.service, audience);
    });
    const call: VerifiedCall = {
      token,
      callingService: proven.service,
      principal: readPrincipal(payload[principalClaim], proven.service),
      expiresAtMs: (payload.exp ?? 0) * 1_000,
    };
    allowed.set(lookupKey(token), call);
    return call;
  }

  return {
    verify(token) {
      if (token === "") throw refused("NO_CREDENTIAL");
      if (token.length > maxTokenCharacters) throw refused("TOO_LONG");
      const known = allowed.get(lookupKey(token));
      if (known !== undefined && known.token === token && known.expiresAtMs > now()) return known;
      return check(token);
    },
  };
}

/**
 * A token whose signature holds and whose time does not is a matter of the two
 * clocks, which the called service may say to a peer that has proven itself:
 * who calls waits until they are right, and fails nothing for it.
 */
function refusalOfToken(thrown: unknown, service: string, audience: string): AppError {
  const code = refusalOf(thrown);
  const options = { cause: thrown, actor: service };
  if (code !== "EXPIRED" && code !== "NOT_YET_VALID") return refused(code, options);
  const message = `the clocks of ${service} and ${audience} differ by more than ${skewSeconds} s: synchronise them (NTP)`;
  const cause = new Refusal(code, options);
  return new AppError("UNAVAILABLE", message, { cause, retryAfterMs: 1_000, metadata: { clocks: "differ" } });
}

/** Whether a peer refused a call because its clock and this process's differ; its message names both services. */
export function isClockRefusal({ reason, metadata }: AppError): boolean {
  return reason === "UNAVAILABLE" && metadata["clocks"] === "differ";
}

function lookupKey(token: string): string {
  return token.slice(-lookupCharacters);
}

function toHeader({ kid, x5c }: KeyProof): { kid?: string; x5c?: string[] } {
  return { ...(kid === undefined ? {} : { kid }), ...(x5c === undefined ? {} : { x5c: [...x5c] }) };
}

/** The header says only where the proof is; nothing in it is believed before the signature holds. */
function prove(trust: MeshTrust, token: string): ProvenService {
  let proof: KeyProof;
  try {
    const { kid, x5c } = decodeProtectedHeader(token);
    proof = { ...(kid === undefined ? {} : { kid }), ...(x5c === undefined ? {} : { x5c }) };
  } catch (cause) {
    throw refused("MALFORMED", { cause });
  }
  const proven = trust.resolve(proof);
  if (proven === undefined) throw refused("UNKNOWN_KEY");
  return proven;
}

function readPrincipal(claim: unknown, service: string): Principal | undefined {
  if (claim === undefined) return undefined;
  if (typeof claim !== "string") throw refused("CLAIM_INVALID", { actor: service });
  try {
    return decodePrincipal(claim);
  } catch (cause) {
    throw refused("CLAIM_INVALID", { cause, actor: service });
  }
}

/** The true reason behind what jose throws. A plain TypeError is a key of the wrong kind for the algorithm. */
export function refusalOf(thrown: unknown): RefusalCode {
  if (thrown instanceof errors.JWTExpired) return "EXPIRED";
  if (thrown instanceof errors.JWTClaimValidationFailed) return refusalOfClaim(thrown);
  if (thrown instanceof errors.JOSEAlgNotAllowed || thrown instanceof TypeError) return "ALG_NOT_ALLOWED";
  if (thrown instanceof errors.JWSSignatureVerificationFailed) return "SIGNATURE";
  if (thrown instanceof errors.JWKSNoMatchingKey || thrown instanceof errors.JWKSMultipleMatchingKeys)
    return "UNKNOWN_KEY";
  return "MALFORMED";
}

function refusalOfClaim(error: errors.JWTClaimValidationFailed): RefusalCode {
  if (error.reason === "missing") return "CLAIM_MISSING";
  const codes: Readonly<Record<string, RefusalCode>> = {
    nbf: "NOT_YET_VALID",
    iat: "NOT_YET_VALID",
    iss: "WRONG_ISSUER",
    aud: "WRONG_AUDIENCE",
    typ: "WRONG_TYPE",
  };
  return codes[error.claim] ?? "CLAIM_INVALID";
}
