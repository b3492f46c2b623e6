import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { type Principal, PrincipalKind, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { RefusalCode } from "../../runtime/identity/refusal.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { FoundKey } from "../store/key-store.ts";

/** Why a key that exists may not be used; `undefined` if it may. */
export function faultOfKey({ key, isExpired, org }: FoundKey): RefusalCode | undefined {
  if (key.revoked_at !== null) return "REVOKED";
  if (isExpired) return "EXPIRED";
  if (org.isDeleted) return "ORG_DELETED";
  return undefined;
}

/** Whom a key stands for. */
export function principalOfKey({ key, org }: FoundKey): Principal {
  return create(PrincipalSchema, {
    kind: PrincipalKind.KEY,
    subject: fromUuid("key", key.key_id),
    orgId: fromUuid("org", key.org_id),
    role: key.role,
    scopes: key.scopes,
    tools: key.tools,
    operator: org.operator && key.role === Role.OWNER,
    ...(key.expires_at === null ? {} : { expiresAt: timestampFromDate(key.expires_at) }),
  });
}
