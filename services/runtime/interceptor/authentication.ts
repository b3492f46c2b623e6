import type { DescMethod } from "@bufbuild/protobuf";
import type { Interceptor } from "@connectrpc/connect";
import type { Authenticator } from "../identity/authenticator.ts";
import { peerIdentityKey } from "../mesh/peer-identity.ts";
import { requestContext } from "../rpc/request-context.ts";
import { type AccessRules, accessRules } from "./access-rule.ts";

/**
 * Finds out who calls and notes it in the request's context. A method that
 * anyone may call needs no credential, and one that is presented all the same
 * is not looked at.
 *
 * @throws AppError UNAUTHENTICATED without an accepted credential
 */
export function authentication(authenticator: Authenticator, rules: AccessRules = accessRules()): Interceptor {
  return (next) => async (request) => {
    if (!needsCredential(rules, request.method)) return next(request);
    const scope = requestContext(request.contextValues);
    const answer = authenticator.authenticate(request.header, {
      source: scope.source,
      peerIdentity: request.contextValues.get(peerIdentityKey),
      requestId: scope.requestId,
      traceparent: scope.traceparent,
      signal: scope.signal,
    });
    const { principal, callingService } = answer instanceof Promise ? await answer : answer;
    scope.principal = principal;
    scope.callingService = callingService;
    return next(request);
  };
}

function needsCredential(rules: AccessRules, method: DescMethod): boolean {
  // What is refused to all is refused before anybody is asked who calls.
  const { kind } = rules.of(method);
  return kind === "guarded";
}
