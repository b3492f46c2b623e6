import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { type RevokeTokenRequest, type TokenId, TokenService } from "@cadre/gen/cadre/credentials/v1/token_pb";
import type { Transaction } from "kysely";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toAppError } from "../../runtime/errors/failure.ts";
import { toUuid } from "../../runtime/ids/id.ts";
import type { RequestContext } from "../../runtime/rpc/request-context.ts";
import { limitsOf } from "../domain/limit.ts";
import { maxTokenLifetimeMs, rememberedUntil, subjectPrefix, type TokenKey } from "../domain/token.ts";
import { appendChange, readRevision } from "../store/change-store.ts";
import { findLimits } from "../store/limit-store.ts";
import type { CredentialsSchema } from "../store/schema.ts";
import { countRevokedTokens, markTokenRevoked } from "../store/token-store.ts";
import { allowedContent } from "./audit-event.ts";
import type { CredentialsDeps } from "./credentials-deps.ts";
import type { JwtVerifier } from "./verify-jwt.ts";

export interface RevokeTokenDeps extends CredentialsDeps {
  readonly jwts: JwtVerifier;
}

/** A token that is to be revoked. */
interface Revocation extends TokenKey {
  readonly expiresAtMs: number;
}

/**
 * Revokes one JWT of the principal's org. When it resolves, no process accepts
 * the token any more, and nothing new begins for what was started with it. Of
 * one that was revoked before it makes sure of that again.
 *
 * @throws AppError INVALID_ARGUMENT if it is no token of the org, or of an issuer that is not configured for it;
 *   LIMIT_EXCEEDED for too many revoked ones; UNAVAILABLE if the issuer's keys cannot be read
 */
export async function revokeToken(
  deps: RevokeTokenDeps,
  principal: Principal,
  request: RevokeTokenRequest["token"],
  scope: RequestContext,
): Promise<TokenKey & { readonly rememberedUntil: Date }> {
  const token = await toRevocation(deps.jwts, principal.orgId, request);
  const orgId = toUuid("org", principal.orgId);
  const { revoked, revision } = await deps.database.asOrg(orgId, async (transaction) => {
    await assertRoomForToken(transaction, orgId);
    const revoked = await markTokenRevoked(transaction, orgId, token, rememberedUntil(token.expiresAtMs));
    if (!revoked.isNew) return { revoked, revision: await readRevision(transaction) };
    const action = `${TokenService.typeName}/${TokenService.method.revokeToken.name}`;
    const resource = `token/${subjectPrefix(token.issuer)}${token.tokenId}`;
    await deps.auditLog.append(transaction, [
      allowedContent({ type: "token.revoked", action, resource: resource.slice(0, 256) }, principal, scope),
    ]);
    const subject = subjectPrefix(token.issuer);
    const change = { kind: "credential_revoked", orgId, subject, tokenId: token.tokenId } as const;
    return { revoked, revision: await appendChange(transaction, change, scope) };
  });
  await deps.changes.settle(revision);
  return { issuer: token.issuer, tokenId: token.tokenId, rememberedUntil: revoked.rememberedUntil };
}

async function toRevocation(
  jwts: JwtVerifier,
  orgId: string,
  request: RevokeTokenRequest["token"],
): Promise<Revocation> {
  switch (request.case) {
    case "jwt":
      return identify(jwts, orgId, request.value);
    case "id":
      return toTokenKey(jwts, orgId, request.value);
    case undefined:
      throw invalid("token", "is required");
  }
}

/** What a token of the org says of itself, whether or not it has ended. */
async function identify(jwts: JwtVerifier, orgId: string, jwt: string): Promise<Revocation> {
  const identity = await jwts.identify(jwt).catch((thrown: unknown) => {
    const failure = toAppError(thrown);
    // The caller's own credential is good; it is the one in the message that is not.
    throw failure.reason === "UNAUTHENTICATED" ? invalid("jwt", "is no token of your org") : failure;
  });
  if (identity.orgId !== orgId) throw invalid("jwt", "is no token of your org");
  return identity;
}

function toTokenKey(jwts: JwtVerifier, orgId: string, { issuer, tokenId, expiresAt }: TokenId): Revocation {
  if (!jwts.speaksFor(issuer, orgId)) throw invalid("id.issuer", "is none whose tokens your org uses");
  const latestMs = Date.now() + maxTokenLifetimeMs;
  return {
    issuer,
    tokenId,
    expiresAtMs: expiresAt === undefined ? latestMs : Math.min(timestampMs(expiresAt), latestMs),
  };
}

async function assertRoomForToken(transaction: Transaction<CredentialsSchema>, orgId: string): Promise<void> {
  const { found } = await findLimits(transaction, orgId);
  const limit = limitsOf(found ?? new Map()).find(({ name }) => name === "revoked_tokens");
  if (limit === undefined || (await countRevokedTokens(transaction, orgId)) < limit.value) return;
  throw new AppError("LIMIT_EXCEEDED", `the org has ${limit.value} revoked tokens already`, {
    quotas: [{ subject: "org", limit: limit.name, value: BigInt(limit.value), description: limit.description }],
  });
}

function invalid(field: string, message: string): AppError {
  return new AppError("INVALID_ARGUMENT", `${field}: ${message}`, { violations: [{ field, message }] });
}
