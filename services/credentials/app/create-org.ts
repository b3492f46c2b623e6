import { create } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import {
  type CreateOrgRequest,
  type CreateOrgResponse,
  CreateOrgResponseSchema,
  IdentityService,
  type Principal,
} from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { Transaction } from "kysely";
import { type ApiKey, apiKeyDigest, makeApiKey } from "../../runtime/identity/api-key.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import { withIdempotency } from "../../runtime/postgres/idempotency.ts";
import type { RequestContext } from "../../runtime/rpc/request-context.ts";
import { insertKey, type StoredKey } from "../store/key-store.ts";
import { insertOrg, type StoredOrg } from "../store/org-store.ts";
import type { CredentialsSchema } from "../store/schema.ts";
import { allowedContent } from "./audit-event.ts";
import type { CredentialsDeps } from "./credentials-deps.ts";
import { toProtoKey, toProtoOrg } from "./proto-key.ts";

/** An org with its first key, which is an owner's and may do everything in it. */
export interface FoundedOrg {
  readonly org: StoredOrg;
  readonly key: StoredKey;
  readonly apiKey: ApiKey;
}

/** What an org is founded with. */
export interface OrgFoundation {
  readonly name: string;
  /** Whether it runs the installation. */
  readonly operator: boolean;
  /** When its first key ends; `null` for never. */
  readonly keyExpiresAt: Date | null;
}

const firstKeyLifetimeMs = 90 * 24 * 3_600_000;

/** Stores an org and its first key. */
export async function foundOrg(
  deps: Pick<CredentialsDeps, "environment" | "hmacKey">,
  transaction: Transaction<CredentialsSchema>,
  foundation: OrgFoundation,
): Promise<FoundedOrg> {
  const orgId = toUuid("org", newId("org"));
  const org = await insertOrg(transaction, { org_id: orgId, name: foundation.name, operator: foundation.operator });
  const apiKey = makeApiKey(deps.environment);
  const key = await insertKey(transaction, {
    key_id: toUuid("key", newId("key")),
    org_id: orgId,
    name: "admin",
    role: Role.OWNER,
    scopes: ["*"],
    tools: ["*"],
    prefix: apiKey.prefix,
    digest: apiKeyDigest(deps.hmacKey, apiKey),
    created_by: "",
    expires_at: foundation.keyExpiresAt,
  });
  return { org, key, apiKey };
}

/** Creates an org for an operator, with a key of 90 days. */
export async function createOrg(
  deps: CredentialsDeps,
  principal: Principal,
  request: CreateOrgRequest,
  scope: RequestContext,
): Promise<CreateOrgResponse> {
  const method = IdentityService.method.createOrg;
  const call = { orgId: toUuid("org", principal.orgId), method, key: scope.idempotencyKey, request };
  // As the engine: no role of one org may write another.
  return deps.database.engine.transaction().execute((transaction) =>
    withIdempotency(transaction, call, async () => {
      const { org, key, apiKey } = await foundOrg(deps, transaction, {
        name: request.name,
        operator: false,
        keyExpiresAt: new Date(Date.now() + firstKeyLifetimeMs),
      });
      const proto = toProtoOrg(org);
      const event = {
        type: "org.created",
        action: `${IdentityService.typeName}/${method.name}`,
        resource: `org/${proto.orgId}`,
      };
      await deps.auditLog.append(transaction, [allowedContent(event, principal, scope)]);
      return create(CreateOrgResponseSchema, { org: proto, key: toProtoKey(key), secret: apiKey.text });
    }),
  );
}
