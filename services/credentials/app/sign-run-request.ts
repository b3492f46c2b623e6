import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { TokenService } from "@cadre/gen/cadre/credentials/v1/token_pb";
import { toUuid } from "../../runtime/ids/id.ts";
import type { RequestContext } from "../../runtime/rpc/request-context.ts";
import { allowedContent } from "./audit-event.ts";
import type { CredentialsDeps } from "./credentials-deps.ts";
import type { RunRequestToken, RunRequestTokens } from "./run-request-token.ts";

export interface SignRunRequestDeps extends Pick<CredentialsDeps, "database" | "auditLog"> {
  readonly runRequestTokens: RunRequestTokens;
}

/**
 * Signs a request for a run that goes through the bus, for a principal. That it
 * did is in the audit log before the token is out.
 *
 * @param sha256 of the request's bytes
 */
export async function signRunRequest(
  deps: SignRunRequestDeps,
  principal: Principal,
  sha256: Uint8Array,
  scope: RequestContext,
): Promise<RunRequestToken> {
  const signed = await deps.runRequestTokens.sign(principal, sha256);
  const action = `${TokenService.typeName}/${TokenService.method.signRunRequest.name}`;
  await deps.database.asOrg(toUuid("org", principal.orgId), (transaction) =>
    deps.auditLog.append(transaction, [
      allowedContent({ type: "token.signed", action, resource: "token" }, principal, scope),
    ]),
  );
  return signed;
}
