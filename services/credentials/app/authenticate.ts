import { timingSafeEqual } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { type Principal, PrincipalKind, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { Kysely } from "kysely";
import { apiKeyDigest, isApiKeyText, parseApiKey } from "../../runtime/identity/api-key.ts";
import { refused } from "../../runtime/identity/refusal.ts";
import { fromUuid, toUuid } from "../../runtime/ids/id.ts";
import { findKey } from "../store/key-store.ts";
import { findOrgOfToken } from "../store/org-store.ts";
import type { CredentialsSchema } from "../store/schema.ts";
import { checkPrincipal } from "./check-principal.ts";
import type { KeyUse } from "./key-use.ts";
import { faultOfKey, principalOfKey } from "./principal-of-key.ts";
import type { RunRequestTokens } from "./run-request-token.ts";
import type { JwtVerifier } from "./verify-jwt.ts";

export interface AuthenticateDeps {
  readonly engine: Kysely<CredentialsSchema>;
  readonly hmacKey: Uint8Array;
  readonly jwts: JwtVerifier;
  readonly keyUse: KeyUse;
  readonly runRequestTokens: RunRequestTokens;
}

/** Whom a credential stands for, and the revision that this reflects. */
export interface Authenticated {
  readonly principal: Principal;
  readonly revision: bigint;
}

/**
 * Finds out whom an API key or a JWT stands for.
 *
 * @throws AppError UNAUTHENTICATED with the true reason as its cause, UNAVAILABLE if it cannot be found out
 */
export async function authenticate(deps: AuthenticateDeps, credential: string): Promise<Authenticated> {
  return isApiKeyText(credential) ? authenticateKey(deps, credential) : authenticateJwt(deps, credential);
}

/**
 * Finds out for whom a request for a run was signed that came through the bus,
 * and what they may do now.
 *
 * @param sha256 of the request's bytes
 * @throws AppError as `authenticate`
 */
export async function authenticateRunRequest(
  { engine, runRequestTokens }: AuthenticateDeps,
  token: string,
  sha256: Uint8Array,
): Promise<Authenticated> {
  const asked = await runRequestTokens.verify(token, sha256);
  const { principal, revision } = await checkPrincipal(engine, asked, Date.now());
  if (principal === undefined) throw refused("REVOKED", { actor: asked.subject, orgId: asked.orgId });
  return { principal, revision };
}

async function authenticateKey(deps: AuthenticateDeps, text: string): Promise<Authenticated> {
  const apiKey = parseApiKey(text);
  if (apiKey === undefined) throw refused("CHECKSUM");
  const digest = apiKeyDigest(deps.hmacKey, apiKey);
  const { found, revision } = await findKey(deps.engine, { digest });
  // The index compares digests of secrets, not secrets: its timing says nothing
  // of a key. The row that it found is compared in constant time all the same.
  if (found === undefined || !timingSafeEqual(found.digest, digest)) {
    throw refused("UNKNOWN", { actor: apiKey.prefix });
  }
  const fault = faultOfKey(found);
  if (fault !== undefined) {
    throw refused(fault, { actor: fromUuid("key", found.key.key_id), orgId: fromUuid("org", found.key.org_id) });
  }
  deps.keyUse.note(found.key.key_id);
  return { principal: principalOfKey(found), revision };
}

async function authenticateJwt(deps: AuthenticateDeps, token: string): Promise<Authenticated> {
  const identity = await deps.jwts.verify(token);
  const {
    found: org,
    revision,
    isRevoked,
  } = await findOrgOfToken(deps.engine, toUuid("org", identity.orgId), identity);
  if (org === undefined) throw refused("ORG_DELETED", { actor: identity.subject });
  if (isRevoked) throw refused("REVOKED", { actor: identity.subject, orgId: identity.orgId });
  const principal = create(PrincipalSchema, {
    kind: PrincipalKind.USER,
    subject: identity.subject,
    orgId: identity.orgId,
    role: identity.role,
    scopes: [...identity.scopes],
    operator: org.operator && identity.role === Role.OWNER,
    tokenId: identity.tokenId,
    expiresAt: timestampFromMs(identity.expiresAtMs),
  });
  return { principal, revision };
}
