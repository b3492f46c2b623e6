import { AppError } from "../../runtime/errors/app-error.ts";

/** The limits of orgs that this service keeps, by their names at the credentials service. */
export type LimitName = keyof typeof descriptions;

const descriptions = {
  subjects: "subjects that an org has, or has settings for",
  subject_versions: "versions that a subject has",
} as const;

/**
 * Holds a count to a limit before one is added.
 *
 * @param org its id, `org_…`
 * @throws AppError LIMIT_EXCEEDED
 */
export function assertRoom(org: string, limit: LimitName, count: number, value: number): void {
  if (count < value) return;
  throw new AppError("LIMIT_EXCEEDED", `the limit of ${value} ${descriptions[limit]} is reached`, {
    metadata: { limit },
    quotas: [{ subject: org, limit, value: BigInt(value), description: descriptions[limit] }],
  });
}
