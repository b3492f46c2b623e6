import { ApiKeyService, type Key } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toUuid } from "../../runtime/ids/id.ts";
import { listKeys, readKey } from "../store/key-store.ts";
import type { CredentialsDeps } from "./credentials-deps.ts";
import { toProtoKey } from "./proto-key.ts";

const defaultPageSize = 50;
const method = `${ApiKeyService.typeName}/${ApiKeyService.method.listKeys.name}`;

/** A page of an org's keys, newest first. Throws AppError INVALID_PAGE_TOKEN. */
export async function listOrgKeys(
  deps: CredentialsDeps,
  orgId: string,
  page: { readonly pageSize: number; readonly pageToken: string },
): Promise<{ keys: Key[]; nextPageToken: string }> {
  const scope = { orgId, method, filter: "" };
  const from = deps.pageTokens.open(scope, page.pageToken);
  const { keys, nextKeyId } = await deps.database.asOrg(toUuid("org", orgId), (transaction) =>
    listKeys(transaction, page.pageSize === 0 ? defaultPageSize : page.pageSize, from),
  );
  return {
    keys: keys.map(toProtoKey),
    nextPageToken: nextKeyId === undefined ? "" : deps.pageTokens.seal(scope, nextKeyId),
  };
}

/** A key of an org. Throws AppError KEY_NOT_FOUND. */
export async function getOrgKey(deps: CredentialsDeps, orgId: string, keyId: string): Promise<Key> {
  const key = await deps.database.asOrg(toUuid("org", orgId), (transaction) =>
    readKey(transaction, toUuid("key", keyId)),
  );
  if (key === undefined) throw new AppError("KEY_NOT_FOUND", "no such key");
  return toProtoKey(key);
}
