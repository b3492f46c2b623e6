import type { DescMethod } from "@bufbuild/protobuf";
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { Interceptor } from "@connectrpc/connect";
import { AppError } from "../errors/app-error.ts";
import { refused } from "../identity/refusal.ts";
import { coversScope } from "../identity/scope.ts";
import { type RequestContext, requestContext } from "../rpc/request-context.ts";
import { type AccessRule, type AccessRules, accessRules } from "./access-rule.ts";

/**
 * Holds each call to what its method declares: the services that may call, the
 * least role, the scope. A method that declares nothing is refused.
 *
 * @throws AppError CALLER_NOT_ALLOWED, UNAUTHENTICATED, TENANT_MISMATCH, ROLE_TOO_LOW or SCOPE_MISSING (its metadata
 *   names the scope)
 */
export function authorization(rules: AccessRules = accessRules()): Interceptor {
  return (next) => (request) => {
    const rule = rules.of(request.method);
    if (rule.kind !== "open") {
      assertAllowed(rule, requestContext(request.contextValues), request.header.get("x-tenant-id"));
    }
    return next(request);
  };
}

function assertAllowed(rule: AccessRule, scope: RequestContext, claimedOrg: string | null): void {
  if (rule.kind !== "guarded") throw new AppError("CALLER_NOT_ALLOWED", "nobody may call this method");
  if (rule.callers !== undefined && !rule.callers.has(scope.callingService ?? "")) {
    throw new AppError("CALLER_NOT_ALLOWED", "this method is for other services");
  }
  if (rule.leastRole === undefined) return;
  const { principal } = scope;
  if (principal === undefined) throw refused("NO_CREDENTIAL");
  // The org follows from the credential. Who names another one has mixed up
  // two credentials, or hopes that the name is believed.
  if (claimedOrg !== null && claimedOrg !== principal.orgId) {
    throw new AppError("TENANT_MISMATCH", "x-tenant-id: not the org of the credential");
  }
  assertPrincipalMay(rule, principal);
}

const contract = accessRules();

/**
 * Holds a principal to what a method declares, where a service does later what
 * the principal asked for.
 *
 * @throws AppError CALLER_NOT_ALLOWED, ROLE_TOO_LOW or SCOPE_MISSING
 */
export function assertMayCall(method: DescMethod, principal: Principal): void {
  const rule = contract.of(method);
  if (rule.kind === "open") return;
  if (rule.kind !== "guarded") throw new AppError("CALLER_NOT_ALLOWED", "nobody may call this method");
  assertPrincipalMay(rule, principal);
}

type Guarded = Extract<AccessRule, { readonly kind: "guarded" }>;

function assertPrincipalMay({ leastRole, operator, scope }: Guarded, principal: Principal): void {
  if (leastRole === undefined) return;
  if (principal.role < leastRole || (operator && !principal.operator)) {
    throw new AppError("ROLE_TOO_LOW", "the role of the credential is too low for this method");
  }
  if (scope !== "" && !coversScope(principal.scopes, scope)) {
    throw new AppError("SCOPE_MISSING", `the credential lacks the scope ${scope}`, {
      metadata: { scope },
    });
  }
}
