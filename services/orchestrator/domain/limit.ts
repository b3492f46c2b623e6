import { AppError } from "../../runtime/errors/app-error.ts";
import { fromUuid } from "../../runtime/ids/id.ts";

/** The limits of orgs that the orchestrator keeps, by their names at the credentials service. */
export type LimitName = keyof typeof descriptions;

const descriptions = {
  sessions: "sessions that an org keeps",
  open_runs: "runs of an org that have not ended",
  schedules: "schedules that an org keeps",
  concurrent_turns: "turns of an org that run or wait at once",
  queued_turns: "turns of a session that wait at once",
} as const;

/**
 * The failure of what a limit refuses.
 *
 * @param orgId the org's UUID
 */
export function limitExceeded(orgId: string, limit: LimitName, value: number): AppError {
  return new AppError("LIMIT_EXCEEDED", `the limit of ${value} ${descriptions[limit]} is reached`, {
    metadata: { limit },
    quotas: [{ subject: fromUuid("org", orgId), limit, value: BigInt(value), description: descriptions[limit] }],
  });
}
