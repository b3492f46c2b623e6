import { type ContractSet, isChanged, subjectsOf } from "../domain/contract-set.ts";
import { assertApprover, assertOpen, movedSubjects, type Review, stale } from "../domain/review.ts";
import { type Registrant, readRoom } from "./add-version.ts";
import type { RegistryDeps } from "./deps.ts";
import { addSet } from "./push-contracts.ts";
import { findReview } from "./read-reviews.ts";

/** What an approval registered. */
export interface ApprovedReview {
  readonly review: Review;
  readonly set: ContractSet;
}

/**
 * Registers what a review is about, in one transaction: all, or nothing.
 *
 * @param note what the review keeps of why
 * @param onForced called for each subject that is broken before the commit; what it throws takes everything back
 * @throws AppError REVIEW_NOT_FOUND, REVIEW_CLOSED, REVIEW_OWN, REVIEW_STALE, REGISTRY_READ_ONLY, LIMIT_EXCEEDED
 */
export async function approveReview(
  { store, limits }: RegistryDeps,
  approver: Registrant,
  reviewId: string,
  note: string,
  onForced: (subject: string, reason: string) => Promise<void>,
): Promise<ApprovedReview> {
  const { orgId, subject: by } = approver;
  const { review: asked, files } = await store.read(orgId, (view) => findReview(view, reviewId));
  assertOpen(asked);
  assertApprover(asked, by);
  const room = await readRoom(limits, orgId);
  return store.change(orgId, files.flatMap(subjectsOf), async (change) => {
    await change.reviews.hold();
    const { review: held, compared } = await findReview(change, reviewId);
    assertOpen(held);
    const set = await addSet(change, files, room, { by, reason: held.reason, reviewId });
    const moved = movedSubjects(compared, set.contracts.filter(isChanged));
    if (moved.length > 0) throw stale(moved);
    for (const { subject, state } of set.contracts) if (state === "breaks") await onForced(subject, held.reason);
    return { review: await change.reviews.decide(reviewId, "approved", { by, reason: note }), set };
  });
}

/** Closes a review without registering anything. Throws AppError REVIEW_NOT_FOUND, REVIEW_CLOSED. */
export async function rejectReview(
  { store }: Pick<RegistryDeps, "store">,
  { orgId, subject: by }: Registrant,
  reviewId: string,
  reason: string,
): Promise<Review> {
  return store.change(orgId, [], async (change) => {
    await change.reviews.hold();
    assertOpen((await findReview(change, reviewId)).review);
    return change.reviews.decide(reviewId, "rejected", { by, reason });
  });
}
