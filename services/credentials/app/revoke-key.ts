import { ApiKeyService, type Key } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toUuid } from "../../runtime/ids/id.ts";
import type { RequestContext } from "../../runtime/rpc/request-context.ts";
import { appendChange, readRevision } from "../store/change-store.ts";
import { markRevoked } from "../store/key-store.ts";
import { allowedContent } from "./audit-event.ts";
import type { CredentialsDeps } from "./credentials-deps.ts";
import { toProtoKey } from "./proto-key.ts";

/**
 * Revokes a key of the principal's org. When it resolves, no process accepts
 * the key any more. Of a key that was revoked before it makes sure of that
 * again, as the call that revoked it may not have got so far.
 *
 * @throws AppError KEY_NOT_FOUND
 */
export async function revokeKey(
  deps: CredentialsDeps,
  principal: Principal,
  keyId: string,
  scope: RequestContext,
): Promise<Key> {
  const orgId = toUuid("org", principal.orgId);
  const { key, revision } = await deps.database.asOrg(orgId, async (transaction) => {
    const revoked = await markRevoked(transaction, toUuid("key", keyId));
    if (revoked === undefined) throw new AppError("KEY_NOT_FOUND", "no such key");
    if (!revoked.isNew) return { key: revoked.key, revision: await readRevision(transaction) };
    const action = `${ApiKeyService.typeName}/${ApiKeyService.method.revokeKey.name}`;
    const event = { type: "key.revoked", action, resource: `key/${keyId}` };
    await deps.auditLog.append(transaction, [allowedContent(event, principal, scope)]);
    const change = { kind: "credential_revoked", orgId, subject: keyId, tokenId: "" } as const;
    return { key: revoked.key, revision: await appendChange(transaction, change, scope) };
  });
  await deps.changes.settle(revision);
  return toProtoKey(key);
}
