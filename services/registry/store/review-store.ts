import type { ComparedContract, Contract } from "../domain/contract-set.ts";
import type { Review } from "../domain/review.ts";
import type { Page } from "./registry-store.ts";

/** What is to be decided on. */
export interface ReviewRequest {
  readonly digest: string;
  readonly reason: string;
  readonly requestedBy: string;
  readonly files: readonly Contract[];
  /** What it changes; without what is the same. */
  readonly compared: readonly ComparedContract[];
}

/** A review with what it is about. */
export interface FullReview {
  readonly review: Review;
  /** Empty once it is closed. */
  readonly files: readonly Contract[];
  readonly compared: readonly ComparedContract[];
}

/** Which reviews: undefined for any. */
export interface ReviewFilter {
  readonly state: Review["state"] | undefined;
  readonly subject: string | undefined;
}

/** Reads reviews within one transaction of an org. One whose time is over has expired. */
export interface ReviewView {
  /** Newest first. */
  list(filter: ReviewFilter, page: Page): Promise<readonly Review[]>;
  find(reviewId: string): Promise<FullReview | undefined>;
  /** How many are open, and what their files and comparisons weigh, in bytes. */
  measureOpen(): Promise<{ readonly count: number; readonly bytes: number }>;
}

/** Changes reviews within one transaction of an org. */
export interface ReviewChange extends ReviewView {
  /** Has the org's reviews to itself until the transaction ends, and closes those whose time is over. */
  hold(): Promise<void>;
  findOpen(digest: string): Promise<FullReview | undefined>;
  add(request: ReviewRequest): Promise<Review>;
  /** Forgets an open review. */
  remove(reviewId: string): Promise<void>;
  /** Closes an open review and forgets its files. */
  decide(
    reviewId: string,
    state: "approved" | "rejected",
    decision: { readonly by: string; readonly reason: string },
  ): Promise<Review>;
}
