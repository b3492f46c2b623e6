import { AppError } from "../../runtime/errors/app-error.ts";
import type { Contract } from "../domain/contract-set.ts";
import { assertOpen, type Review } from "../domain/review.ts";
import type { Page, RegistryView } from "../store/registry-store.ts";
import type { FullReview, ReviewFilter } from "../store/review-store.ts";
import type { RegistryDeps } from "./deps.ts";

type Reads = Pick<RegistryDeps, "store">;

/** An org's reviews, newest first. */
export function listReviews(
  { store }: Reads,
  orgId: string,
  filter: ReviewFilter,
  page: Page,
): Promise<readonly Review[]> {
  return store.read(orgId, ({ reviews }) => reviews.list(filter, page));
}

/** A review with what it is about. Throws AppError REVIEW_NOT_FOUND. */
export function getReview({ store }: Reads, orgId: string, reviewId: string): Promise<FullReview> {
  return store.read(orgId, (view) => findReview(view, reviewId));
}

/** A file of an open review. Throws AppError REVIEW_NOT_FOUND, REVIEW_CLOSED, SUBJECT_NOT_FOUND. */
export async function getReviewFile(reads: Reads, orgId: string, reviewId: string, path: string): Promise<Contract> {
  const { review, files } = await getReview(reads, orgId, reviewId);
  assertOpen(review);
  const file = files.find((one) => one.path === path);
  if (file === undefined) throw new AppError("SUBJECT_NOT_FOUND", `the review has no file ${path}`);
  return file;
}

/** The same within a transaction. */
export async function findReview({ reviews }: Pick<RegistryView, "reviews">, reviewId: string): Promise<FullReview> {
  const found = await reviews.find(reviewId);
  if (found === undefined) throw new AppError("REVIEW_NOT_FOUND", "no such review");
  return found;
}
