import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Key, KeySchema } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { type Org, OrgSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { StoredKey } from "../store/key-store.ts";
import type { StoredOrg } from "../store/org-store.ts";

/** A key as its org sees it. */
export function toProtoKey(key: StoredKey): Key {
  return create(KeySchema, {
    keyId: fromUuid("key", key.key_id),
    name: key.name,
    role: key.role,
    scopes: key.scopes,
    tools: key.tools,
    prefix: key.prefix,
    createdAt: timestampFromDate(key.created_at),
    ...(key.expires_at === null ? {} : { expiresAt: timestampFromDate(key.expires_at) }),
    ...(key.last_used_at === null ? {} : { lastUsedAt: timestampFromDate(key.last_used_at) }),
    ...(key.revoked_at === null ? {} : { revokedAt: timestampFromDate(key.revoked_at) }),
  });
}

/** An org as its members see it. */
export function toProtoOrg(org: StoredOrg): Org {
  return create(OrgSchema, {
    orgId: fromUuid("org", org.org_id),
    name: org.name,
    createdAt: timestampFromDate(org.created_at),
  });
}
