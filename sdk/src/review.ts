import {
  type ComparedContract,
  type Contract,
  ContractService,
  type Review,
  ReviewState,
} from "@cadre/gen/cadre/registry/v1/contract_pb";
import { type Caller, type CallOptions, required } from "./caller.ts";
import { type ContractInit, toContract } from "./contract-init.ts";

/** Which reviews to list. */
export interface ReviewFilterOptions extends CallOptions {
  /** Only those in this state. */
  readonly state?: "open" | "approved" | "rejected" | "expired";
  /** Only those that change this subject. */
  readonly subject?: string;
}

/** A review with what it changes. */
export interface ReviewWithContracts {
  readonly review: Review;
  /** Without what is the same. */
  readonly contracts: readonly ComparedContract[];
}

/** Pushes that break and wait for an admin. Reading wants the role `member`. */
export interface Reviews {
  /**
   * Stores a push that breaks for an admin to decide on within 30 days. The
   * same contracts have one open review. Wants the role `developer`.
   *
   * @throws CadreError `INVALID_ARGUMENT` if they break nothing, `INVALID_SCHEMA`, `LIMIT_EXCEEDED`
   */
  request(contracts: readonly ContractInit[], reason: string, options?: CallOptions): Promise<Review>;
  /** The newest 1,000, newest first. */
  list(options?: ReviewFilterOptions): Promise<readonly Review[]>;
  /** @throws CadreError `REVIEW_NOT_FOUND` */
  get(reviewId: string, options?: CallOptions): Promise<ReviewWithContracts>;
  /** A file of an open review. @throws CadreError `REVIEW_NOT_FOUND`, `REVIEW_CLOSED`, `SUBJECT_NOT_FOUND` */
  file(reviewId: string, path: string, options?: CallOptions): Promise<Contract>;
  /**
   * Registers what was reviewed, all or nothing. Wants the role `admin`, of
   * somebody else than who asked.
   *
   * @param note what the review keeps of why
   * @throws CadreError `REVIEW_NOT_FOUND`, `REVIEW_CLOSED`, `REVIEW_OWN`; `REVIEW_STALE` if what is registered changed meanwhile
   */
  approve(reviewId: string, note?: string, options?: CallOptions): Promise<ReviewWithContracts>;
  /** Closes a review. Wants the role `admin`. @throws CadreError `REVIEW_NOT_FOUND`, `REVIEW_CLOSED` */
  reject(reviewId: string, reason: string, options?: CallOptions): Promise<Review>;
}

const stateNumber = {
  open: ReviewState.OPEN,
  approved: ReviewState.APPROVED,
  rejected: ReviewState.REJECTED,
  expired: ReviewState.EXPIRED,
} as const;

const maxListed = 1_000;

/** Creates the reviews of a client. */
export function createReviews(caller: Caller): Reviews {
  const { method } = ContractService;
  return {
    async request(contracts, reason, options) {
      const request = { contracts: contracts.map(toContract), reason };
      return required((await caller.unary(method.requestReview, request, options)).review, "review");
    },
    async list(options = {}) {
      const { state, subject = "", ...call } = options;
      const filter = { state: state === undefined ? ReviewState.UNSPECIFIED : stateNumber[state], subject };
      return (await caller.unary(method.listReviews, { ...filter, limit: maxListed }, call)).reviews;
    },
    async get(reviewId, options) {
      const { review, contracts } = await caller.unary(method.getReview, { reviewId }, options);
      return { review: required(review, "review"), contracts };
    },
    async file(reviewId, path, options) {
      return required((await caller.unary(method.getReviewFile, { reviewId, path }, options)).contract, "contract");
    },
    async approve(reviewId, note = "", options) {
      const { review, contracts } = await caller.unary(method.approveReview, { reviewId, reason: note }, options);
      return { review: required(review, "review"), contracts };
    },
    async reject(reviewId, reason, options) {
      return required((await caller.unary(method.rejectReview, { reviewId, reason }, options)).review, "review");
    },
  };
}
