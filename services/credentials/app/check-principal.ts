import { create } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { type Principal, PrincipalKind, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { Kysely } from "kysely";
import { expiryMs } from "../../runtime/identity/principal.ts";
import { isId, toUuid } from "../../runtime/ids/id.ts";
import { issuerOf, userGraceMs } from "../domain/token.ts";
import { findKey } from "../store/key-store.ts";
import { findOrgOfToken } from "../store/org-store.ts";
import type { CredentialsSchema } from "../store/schema.ts";
import { faultOfKey, principalOfKey } from "./principal-of-key.ts";

/** What a principal may do now; no principal if it may not act any more. */
export interface CheckedPrincipal {
  readonly principal: Principal | undefined;
  readonly revision: bigint;
}

/**
 * Whether a principal that was authenticated before may still act. A key may
 * while it can be used, with what it carries now; a user for a day after the
 * token, while the org exists and has not revoked the token.
 */
export async function checkPrincipal(
  engine: Kysely<CredentialsSchema>,
  asked: Principal,
  nowMs: number,
): Promise<CheckedPrincipal> {
  const orgId = toUuid("org", asked.orgId);
  if (asked.kind === PrincipalKind.KEY && isId("key", asked.subject)) {
    const { found, revision } = await findKey(engine, { keyId: toUuid("key", asked.subject) });
    const mayAct = found !== undefined && found.key.org_id === orgId && faultOfKey(found) === undefined;
    return { principal: mayAct ? principalOfKey(found) : undefined, revision };
  }
  const token = { issuer: issuerOf(asked.subject) ?? "", tokenId: asked.tokenId };
  const { found: org, revision, isRevoked } = await findOrgOfToken(engine, orgId, token);
  const mayAct = asked.kind === PrincipalKind.USER && !isRevoked && expiryMs(asked) + userGraceMs > nowMs;
  if (!mayAct || org === undefined) return { principal: undefined, revision };
  return {
    principal: create(PrincipalSchema, { ...asked, operator: org.operator && asked.role === Role.OWNER }),
    revision,
  };
}
