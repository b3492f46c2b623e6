import { createRemoteJWKSet, decodeJwt, decodeProtectedHeader, errors, type JWTPayload, jwtVerify } from "jose";
import { AppError } from "../../runtime/errors/app-error.ts";
import { type RefusalCode, refused } from "../../runtime/identity/refusal.ts";
import { refusalOf } from "../../runtime/identity/service-token.ts";
import { isId } from "../../runtime/ids/id.ts";
import { maxTokenLifetimeMs, subjectPrefix, type TokenKey } from "../domain/token.ts";
import type { JwtIssuer } from "./jwt-issuer.ts";

// Invariants (RFC 8725):
// 1. Keys come from a configured issuer's address and from nowhere else: a
//    header that brings or names keys of its own is refused.
// 2. The algorithm is one of the issuer's list, which has no symmetric ones.
// 3. Nothing in a token is believed before its signature holds; the issuer that
//    it names only selects whose keys are tried.

/** Whom a JWT stands for, as its issuer says. */
export interface JwtIdentity extends TokenKey {
  /** `<issuer>|<sub>`. */
  readonly subject: string;
  /** `org_…`; whether it exists is not known yet. */
  readonly orgId: string;
  /** `cadre.credentials.v1.Role`. */
  readonly role: number;
  readonly scopes: readonly string[];
  /** When it ends, in milliseconds since the epoch. */
  readonly expiresAtMs: number;
}

/** Verifies JWTs of the configured issuers. */
export interface JwtVerifier {
  /**
   * @throws AppError UNAUTHENTICATED with the true reason as its cause, UNAVAILABLE if the issuer's keys cannot be had
   */
  verify(token: string): Promise<JwtIdentity>;
  /** The same for a token that may have ended: whom it stood for. Grants nothing. */
  identify(token: string): Promise<JwtIdentity>;
  /** Whether an issuer is configured, and its tokens may be an org's. */
  speaksFor(issuer: string, orgId: string): boolean;
}

const maxTokenCharacters = 4_096;
/** Clocks of the issuer and of this machine may differ that much. */
const skewSeconds = 60;
const keysTimeoutMs = 2_000;
/** An unknown `kid` fetches the keys again, but no more often. */
const keysCooldownMs = 30_000;
const keysMaxAgeMs = 600_000;
const maxScopes = 64;
const roles: Readonly<Record<string, number>> = { member: 1, developer: 2, admin: 3, owner: 4 };
const refusedHeaders = ["jku", "x5u", "jwk", "x5c", "crit", "b64", "zip"];

/** @param now milliseconds since the epoch */
export function createJwtVerifier(issuers: readonly JwtIssuer[], now: () => number = Date.now): JwtVerifier {
  const known = new Map(
    issuers.map((issuer) => {
      const keys = createRemoteJWKSet(new URL(issuer.jwks_url), {
        timeoutDuration: keysTimeoutMs,
        cooldownDuration: keysCooldownMs,
        cacheMaxAge: keysMaxAgeMs,
      });
      return [issuer.issuer, { issuer, keys }];
    }),
  );

  async function read(token: string, clockTolerance: number): Promise<JwtIdentity> {
    if (token.length > maxTokenCharacters) throw refused("TOO_LONG");
    // jose also reads the other base64 alphabet and padding; one token has one text.
    if (!/^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/.test(token)) throw refused("MALFORMED");
    const { iss, kid } = look(token);
    const found = known.get(iss);
    if (found === undefined) throw refused("WRONG_ISSUER");
    const { issuer, keys } = found;
    const { payload } = await jwtVerify(token, (header, jws) => keys(header, jws).catch(rethrowKeys), {
      algorithms: [...issuer.algorithms],
      issuer: issuer.issuer,
      audience: issuer.audience,
      typ: issuer.typ,
      requiredClaims: ["exp", "iat", "iss", "aud", "sub", "jti"],
      clockTolerance,
      currentDate: new Date(now()),
    }).catch((thrown: unknown) => {
      if (thrown instanceof AppError) throw thrown;
      throw refused(refusalOf(thrown), { cause: thrown, actor: `${iss}|?kid=${kid}` });
    });
    return toIdentity(issuer, payload, now());
  }

  return {
    verify: (token) => read(token, skewSeconds),
    identify: (token) => read(token, maxTokenLifetimeMs / 1_000),
    speaksFor: (name, orgId) => {
      const issuer = known.get(name)?.issuer;
      return issuer !== undefined && issuer.orgs?.includes(orgId) !== false;
    },
  };
}

/** What selects the key, not believed yet. */
function look(token: string): { iss: string; kid: string } {
  let header: ReturnType<typeof decodeProtectedHeader>;
  let payload: JWTPayload;
  try {
    header = decodeProtectedHeader(token);
    payload = decodeJwt(token);
  } catch (cause) {
    throw refused("MALFORMED", { cause });
  }
  if (refusedHeaders.some((name) => name in header)) throw refused("HEADER_NOT_ALLOWED");
  if (typeof header.alg !== "string") throw refused("ALG_NOT_ALLOWED");
  if (typeof header.kid !== "string" || header.kid.length > 256) throw refused("UNKNOWN_KEY");
  return { iss: typeof payload.iss === "string" ? payload.iss : "", kid: header.kid };
}

/** A key that is not there is the token's fault; everything else the issuer's. */
function rethrowKeys(thrown: unknown): never {
  if (thrown instanceof errors.JWKSNoMatchingKey || thrown instanceof errors.JWKSMultipleMatchingKeys) throw thrown;
  if (thrown instanceof errors.JOSENotSupported) throw thrown;
  throw new AppError("UNAVAILABLE", "the issuer's keys cannot be read", { cause: thrown, retryAfterMs: 1_000 });
}

function toIdentity(issuer: JwtIssuer, payload: JWTPayload, nowMs: number): JwtIdentity {
  const { sub, jti, exp, iat } = payload;
  const actor = `${subjectPrefix(issuer.issuer)}${typeof sub === "string" ? sub : ""}`;
  const refuse = (code: RefusalCode): never => {
    throw refused(code, { actor });
  };
  if (typeof sub !== "string" || sub === "" || sub.length > 255) return refuse("CLAIM_INVALID");
  if (typeof jti !== "string" || jti === "" || jti.length > 256) return refuse("CLAIM_INVALID");
  if (exp === undefined || iat === undefined || iat * 1_000 > nowMs + skewSeconds * 1_000)
    return refuse("CLAIM_INVALID");
  if (exp * 1_000 > nowMs + maxTokenLifetimeMs) return refuse("CLAIM_INVALID");
  const orgId = payload[issuer.org_claim];
  if (typeof orgId !== "string" || !isId("org", orgId)) return refuse("CLAIM_INVALID");
  if (issuer.orgs?.includes(orgId) === false) return refuse("CLAIM_INVALID");
  const role = readRole(payload[issuer.role_claim]);
  const scopes = readScopes(payload[issuer.scope_claim]);
  if (role === undefined || scopes === undefined) return refuse("CLAIM_INVALID");
  return { issuer: issuer.issuer, subject: actor, tokenId: jti, orgId, role, scopes, expiresAtMs: exp * 1_000 };
}

function readRole(claim: unknown): number | undefined {
  if (claim === undefined) return roles.member;
  return typeof claim === "string" && Object.hasOwn(roles, claim) ? roles[claim] : undefined;
}

/** Scopes that are not of our form are for others, and left out. */
function readScopes(claim: unknown): string[] | undefined {
  if (claim === undefined) return [];
  const list: unknown = typeof claim === "string" ? claim.split(" ") : claim;
  if (!Array.isArray(list) || !list.every((item): item is string => typeof item === "string")) return undefined;
  const scopes = list.filter((scope) => scope.length <= 64 && /^(\*|[a-z]+\.(\*|[a-z]+))$/.test(scope));
  return scopes.length > maxScopes ? undefined : scopes;
}
