import { create } from "@bufbuild/protobuf";
import { type Duration, durationMs } from "@bufbuild/protobuf/wkt";
import {
  ApiKeyService,
  type IssueKeyRequest,
  type IssueKeyResponse,
  IssueKeyResponseSchema,
  Role,
} from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { Transaction } from "kysely";
import { AppError } from "../../runtime/errors/app-error.ts";
import { apiKeyDigest, makeApiKey } from "../../runtime/identity/api-key.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import { withIdempotency } from "../../runtime/postgres/idempotency.ts";
import type { RequestContext } from "../../runtime/rpc/request-context.ts";
import { assertGrantable, assertGrantSize } from "../domain/grant.ts";
import { limitsOf } from "../domain/limit.ts";
import { countUsableKeys, insertKey } from "../store/key-store.ts";
import { findLimits } from "../store/limit-store.ts";
import type { CredentialsSchema } from "../store/schema.ts";
import { allowedContent } from "./audit-event.ts";
import type { CredentialsDeps } from "./credentials-deps.ts";
import { toProtoKey } from "./proto-key.ts";

const defaultLifetimeMs = 90 * 24 * 3_600_000;

/**
 * Issues a key in the principal's org.
 *
 * @throws AppError GRANT_TOO_WIDE if it would carry more than the principal does, LIMIT_EXCEEDED for too many keys
 */
export async function issueKey(
  deps: CredentialsDeps,
  principal: Principal,
  request: IssueKeyRequest,
  scope: RequestContext,
): Promise<IssueKeyResponse> {
  const role = request.role === Role.UNSPECIFIED ? Role.MEMBER : request.role;
  const grant = { role, scopes: request.scopes, tools: request.tools };
  assertGrantSize(grant);
  assertGrantable(principal, grant);
  const orgId = toUuid("org", principal.orgId);
  const { method } = ApiKeyService;
  const call = { orgId, method: method.issueKey, key: scope.idempotencyKey, request };
  return deps.database.asOrg(orgId, (transaction) =>
    withIdempotency(transaction, call, async () => {
      await assertRoomForKey(transaction, orgId);
      const apiKey = makeApiKey(deps.environment);
      const keyId = newId("key");
      const key = await insertKey(transaction, {
        key_id: toUuid("key", keyId),
        org_id: orgId,
        name: request.name,
        ...grant,
        prefix: apiKey.prefix,
        digest: apiKeyDigest(deps.hmacKey, apiKey),
        created_by: principal.subject,
        expires_at: new Date(Date.now() + lifetimeMs(request.lifetime)),
      });
      const event = {
        type: "key.issued",
        action: `${ApiKeyService.typeName}/${method.issueKey.name}`,
        resource: `key/${keyId}`,
      };
      await deps.auditLog.append(transaction, [allowedContent(event, principal, scope)]);
      return create(IssueKeyResponseSchema, { key: toProtoKey(key), secret: apiKey.text });
    }),
  );
}

async function assertRoomForKey(transaction: Transaction<CredentialsSchema>, orgId: string): Promise<void> {
  const { found } = await findLimits(transaction, orgId);
  const limit = limitsOf(found ?? new Map()).find(({ name }) => name === "keys");
  if (limit === undefined || (await countUsableKeys(transaction)) < limit.value) return;
  throw new AppError("LIMIT_EXCEEDED", `the org has ${limit.value} keys already`, {
    quotas: [{ subject: "org", limit: limit.name, value: BigInt(limit.value), description: limit.description }],
  });
}

function lifetimeMs(lifetime: Duration | undefined): number {
  return lifetime === undefined ? defaultLifetimeMs : durationMs(lifetime);
}
