import { AppError } from "../../runtime/errors/app-error.ts";
import { fromUuid } from "../../runtime/ids/id.ts";

/** The limits of orgs that this service keeps, by their names at the credentials service. */
export type LimitName = keyof typeof descriptions;

const descriptions = {
  tools: "tools that an org has",
  tool_definitions: "definitions that a tool ever had",
  tool_calls: "calls of workers' tools that wait or run at once",
  workers: "workers of an org that are connected at once",
} as const;

/** What an org may register. */
export type RegistrationLimits = Readonly<Record<"tools" | "tool_definitions", number>>;

/**
 * The failure of what a limit refuses.
 *
 * @param orgId the org's UUID
 */
export function limitExceeded(
  orgId: string,
  limit: LimitName,
  value: number,
  options: { readonly retryAfterMs?: number } = {},
): AppError {
  return new AppError("LIMIT_EXCEEDED", `the limit of ${value} ${descriptions[limit]} is reached`, {
    ...options,
    metadata: { limit },
    quotas: [{ subject: fromUuid("org", orgId), limit, value: BigInt(value), description: descriptions[limit] }],
  });
}
