import { IdentityService, type Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toUuid } from "../../runtime/ids/id.ts";
import type { RequestContext } from "../../runtime/rpc/request-context.ts";
import { isLimitName, limitDefinitions, type OrgLimit } from "../domain/limit.ts";
import { appendChange } from "../store/change-store.ts";
import { writeLimit } from "../store/limit-store.ts";
import { allowedContent } from "./audit-event.ts";
import type { CredentialsDeps } from "./credentials-deps.ts";

/**
 * Sets a limit of the principal's org. When it resolves, every process uses it.
 *
 * @throws AppError LIMIT_NOT_FOUND, or INVALID_ARGUMENT for a value past the limit's own
 */
export async function setLimit(
  deps: CredentialsDeps,
  principal: Principal,
  request: { readonly name: string; readonly value: bigint },
  scope: RequestContext,
): Promise<OrgLimit> {
  const { name } = request;
  if (!isLimitName(name)) throw new AppError("LIMIT_NOT_FOUND", "no limit of that name");
  const definition = limitDefinitions[name];
  if (request.value > BigInt(definition.max)) {
    const message = `must be at most ${definition.max}`;
    throw new AppError("INVALID_ARGUMENT", `value: ${message}`, { violations: [{ field: "value", message }] });
  }
  const value = Number(request.value);
  const orgId = toUuid("org", principal.orgId);
  const revision = await deps.database.asOrg(orgId, async (transaction) => {
    await writeLimit(transaction, orgId, name, value);
    const action = `${IdentityService.typeName}/${IdentityService.method.setLimit.name}`;
    const event = { type: "limit.set", action, resource: `limit/${name}` };
    await deps.auditLog.append(transaction, [allowedContent(event, principal, scope)]);
    return appendChange(transaction, { kind: "limits_changed", orgId }, scope);
  });
  await deps.changes.settle(revision);
  return { ...definition, name, value };
}
