import { create } from "@bufbuild/protobuf";
import { timestampFromDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { ApiKeyService } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { AuditService, AuditSinkService } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { AuthenticationService, IdentityService, LimitSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { InstallationService } from "@cadre/gen/cadre/credentials/v1/installation_pb";
import { TokenService } from "@cadre/gen/cadre/credentials/v1/token_pb";
import type { DenialLog } from "../../runtime/audit/denial-log.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import { Refusal, refused } from "../../runtime/identity/refusal.ts";
import { fromUuid, toUuid } from "../../runtime/ids/id.ts";
import { type Implementation, implement } from "../../runtime/rpc/implementation.ts";
import { type RequestContext, requestContext, requirePrincipal } from "../../runtime/rpc/request-context.ts";
import { traceIdOf } from "../../runtime/telemetry/traceparent.ts";
import { toContent } from "../app/audit-event.ts";
import { type AuthenticateDeps, authenticate, authenticateRunRequest } from "../app/authenticate.ts";
import { checkPrincipal } from "../app/check-principal.ts";
import { createOrg } from "../app/create-org.ts";
import type { CredentialsDeps } from "../app/credentials-deps.ts";
import { issueKey } from "../app/issue-key.ts";
import { listAuditEvents } from "../app/list-audit-events.ts";
import { toProtoOrg } from "../app/proto-key.ts";
import { getOrgKey, listOrgKeys } from "../app/read-keys.ts";
import { revokeKey } from "../app/revoke-key.ts";
import { revokeToken } from "../app/revoke-token.ts";
import { setLimit } from "../app/set-limit.ts";
import { signRunRequest } from "../app/sign-run-request.ts";
import { limitsOf, type OrgLimit } from "../domain/limit.ts";
import { findLimits } from "../store/limit-store.ts";
import { findOperatorOrg, findOrg } from "../store/org-store.ts";

export interface HandlersDeps extends CredentialsDeps {
  readonly authentication: AuthenticateDeps;
  /** Where refused credentials are noted with their true reason. */
  readonly denials: DenialLog;
}

/** All services of credentials. */
export function createImplementations(deps: HandlersDeps): Implementation[] {
  const { engine } = deps.database;
  return [
    implement(ApiKeyService, {
      issueKey: (request, context) =>
        issueKey(deps, requirePrincipal(context), request, requestContext(context.values)),
      listKeys: (request, context) => listOrgKeys(deps, requirePrincipal(context).orgId, request),
      async getKey({ keyId }, context) {
        return { key: await getOrgKey(deps, requirePrincipal(context).orgId, keyId) };
      },
      async revokeKey({ keyId }, context) {
        return { key: await revokeKey(deps, requirePrincipal(context), keyId, requestContext(context.values)) };
      },
    }),
    implement(TokenService, {
      async revokeToken({ token }, context) {
        const scope = requestContext(context.values);
        const { jwts } = deps.authentication;
        const revoked = await revokeToken({ ...deps, jwts }, requirePrincipal(context), token, scope);
        return { ...revoked, rememberedUntil: timestampFromDate(revoked.rememberedUntil) };
      },
      async signRunRequest({ requestSha256 }, context) {
        const principal = requirePrincipal(context);
        const { runRequestTokens } = deps.authentication;
        const scope = requestContext(context.values);
        const signed = await signRunRequest({ ...deps, runRequestTokens }, principal, requestSha256, scope);
        return { token: signed.token, orgId: principal.orgId, expiresAt: timestampFromMs(signed.expiresAtMs) };
      },
    }),
    implement(IdentityService, {
      async getPrincipal(_, context) {
        const principal = requirePrincipal(context);
        const { found } = await findOrg(engine, toUuid("org", principal.orgId));
        if (found === undefined) throw new AppError("ORG_NOT_FOUND", "no such org");
        return { principal, org: toProtoOrg(found) };
      },
      createOrg: (request, context) =>
        createOrg(deps, requirePrincipal(context), request, requestContext(context.values)),
      async listLimits(_, context) {
        const { found } = await findLimits(engine, toUuid("org", requirePrincipal(context).orgId));
        return { limits: limitsOf(found ?? new Map()).map(toProtoLimit) };
      },
      async setLimit(request, context) {
        const limit = await setLimit(deps, requirePrincipal(context), request, requestContext(context.values));
        return { limit: toProtoLimit(limit) };
      },
    }),
    implement(AuthenticationService, {
      async authenticate({ credential, sourceAddress, runRequestSha256 }, context) {
        try {
          return runRequestSha256.length === 0
            ? await authenticate(deps.authentication, credential)
            : await authenticateRunRequest(deps.authentication, credential, runRequestSha256);
        } catch (thrown) {
          throw await noteRefusal(deps.denials, thrown, sourceAddress, requestContext(context.values));
        }
      },
      async checkPrincipal({ principal }) {
        if (principal === undefined) throw new AppError("INVALID_ARGUMENT", "principal: is required");
        return checkPrincipal(engine, principal, Date.now());
      },
      async getLimits({ orgId }) {
        const { found, revision } = await findLimits(engine, toUuid("org", orgId));
        const limits = limitsOf(found ?? new Map());
        return { values: Object.fromEntries(limits.map(({ name, value }) => [name, BigInt(value)])), revision };
      },
      watchChanges: ({ watcherId }, context) => deps.changes.watch(watcherId, context.signal),
      acknowledgeChanges: ({ watcherId, revision }) => ({ freshForMs: deps.changes.acknowledge(watcherId, revision) }),
    }),
    implement(InstallationService, {
      async getInstallation() {
        return { operatorOrgId: fromUuid("org", await findOperatorOrg(engine)) };
      },
    }),
    implement(AuditService, {
      listAuditEvents: (request, context) =>
        listAuditEvents(deps, requirePrincipal(context), request, requestContext(context.values)),
    }),
    implement(AuditSinkService, {
      async appendAuditEvents({ events }) {
        await engine.transaction().execute((transaction) => deps.auditLog.append(transaction, events.map(toContent)));
        return {};
      },
    }),
  ];
}

/** Notes why a credential was refused, durably, before its caller is told that it was. */
async function noteRefusal(
  denials: DenialLog,
  thrown: unknown,
  source: string,
  scope: RequestContext,
): Promise<unknown> {
  if (!(thrown instanceof AppError) || !(thrown.cause instanceof Refusal)) return thrown;
  const { code, actor, orgId, cause } = thrown.cause;
  await denials.record({
    type: "auth.failed",
    reason: code,
    orgId,
    actor,
    action: `${AuthenticationService.typeName}/${AuthenticationService.method.authenticate.name}`,
    resource: "principal",
    source,
    requestId: scope.requestId,
    traceId: traceIdOf(scope.traceparent),
  });
  return refused(code, { actor, orgId, cause, audited: true });
}

function toProtoLimit(limit: OrgLimit) {
  return create(LimitSchema, {
    name: limit.name,
    description: limit.description,
    value: BigInt(limit.value),
    defaultValue: BigInt(limit.default),
    maxValue: BigInt(limit.max),
  });
}
