import { AppError } from "../../runtime/errors/app-error.ts";
import { describeFinding } from "./compatibility/finding.ts";
import type { ComparedContract } from "./contract-set.ts";

/** How a review ended. */
export type DecidedState = "approved" | "rejected" | "expired";

/** What became of a review. */
export type ReviewState = "open" | DecidedState;

/** A set that breaks, for an admin to decide on. */
export interface Review {
  /** Its UUID. */
  readonly reviewId: string;
  readonly state: ReviewState;
  /** The digest of the set. */
  readonly digest: string;
  /** Why it should be registered although it breaks. */
  readonly reason: string;
  readonly requestedBy: string;
  readonly requestedAt: Date;
  readonly expiresAt: Date;
  /** The subjects that it breaks; the first 100. */
  readonly brokenSubjects: readonly string[];
  /** Empty while nobody has. */
  readonly decidedBy: string;
  readonly decidedAt: Date | undefined;
  readonly decisionReason: string;
}

/**
 * The subjects where a set does not change and break now what it did before:
 * whose base, state or findings are others.
 */
export function movedSubjects(before: readonly ComparedContract[], now: readonly ComparedContract[]): string[] {
  const kept = new Map(before.map((contract) => [contract.subject, fingerprint(contract)]));
  const moved = now.filter((contract) => kept.get(contract.subject) !== fingerprint(contract));
  const here = new Set(now.map(({ subject }) => subject));
  return [...moved.map(({ subject }) => subject), ...[...kept.keys()].filter((subject) => !here.has(subject))];
}

function fingerprint({ base, state, findings }: ComparedContract): string {
  return JSON.stringify([base, state, findings.map((finding) => [finding.version, describeFinding(finding)])]);
}

/** Reviews that an org may have open. */
const maxOpen = 20;
/** What the open ones of an org may weigh together, in bytes of JSON. */
const maxOpenBytes = 16 * 1024 * 1024;
/** What the comparison of one may weigh, so that it fits an answer. */
const maxComparedBytes = 2 * 1024 * 1024;

/**
 * Holds an org's open reviews to their bounds before one is added.
 *
 * @param open how many there are, and what they weigh
 * @param added what the new one weighs: all of it, and its comparison
 * @throws AppError LIMIT_EXCEEDED
 */
export function assertReviewRoom(
  open: { readonly count: number; readonly bytes: number },
  added: { readonly bytes: number; readonly comparedBytes: number },
): void {
  if (added.comparedBytes > maxComparedBytes) throw limit("the set breaks too much for a review: push it in parts");
  if (open.count >= maxOpen) throw limit(`${maxOpen} reviews are open: have them decided first`);
  if (open.bytes + added.bytes > maxOpenBytes) {
    throw limit(`the open reviews weigh ${maxOpenBytes / 1024 / 1024} MiB with this one: have them decided first`);
  }
}

function limit(message: string): AppError {
  return new AppError("LIMIT_EXCEEDED", message, { metadata: { limit: "open_reviews" } });
}

/** @throws AppError REVIEW_CLOSED if it was decided before or has expired */
export function assertOpen({ state }: Pick<Review, "state">): void {
  if (state !== "open") {
    const text = state === "expired" ? "the review has expired" : `the review was ${state} before`;
    throw new AppError("REVIEW_CLOSED", text, { metadata: { state } });
  }
}

/** @throws AppError REVIEW_OWN if they asked for it */
export function assertApprover({ requestedBy }: Pick<Review, "requestedBy">, subject: string): void {
  if (requestedBy === subject) {
    throw new AppError("REVIEW_OWN", "who asked for a review cannot approve it: another admin can");
  }
}

/** The failure of a review whose subjects have gone on. */
export function stale(subjects: readonly string[]): AppError {
  const shown = subjects.slice(0, 5).join(", ");
  const rest = subjects.length > 5 ? ` and ${subjects.length - 5} more` : "";
  const message = `${shown}${rest}: not what it was when the review was asked for; push again with a review`;
  return new AppError("REVIEW_STALE", message);
}
