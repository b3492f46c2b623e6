import type { Limits } from "../../runtime/identity/limits.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { LimitName, RegistrationLimits } from "../domain/limit.ts";

/**
 * A limit of an org. Needs no call while it is remembered.
 *
 * @param orgId the org's UUID
 * @throws AppError UNAVAILABLE if it was never known and cannot be had
 */
export function limitOf(limits: Limits, orgId: string, name: LimitName): number | Promise<number> {
  return limits.get(fromUuid("org", orgId), name);
}

/** What an org may register. */
export async function registrationLimits(limits: Limits, orgId: string): Promise<RegistrationLimits> {
  return {
    tools: await limitOf(limits, orgId, "tools"),
    tool_definitions: await limitOf(limits, orgId, "tool_definitions"),
  };
}
