import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  ContractState,
  type Review as ProtoReview,
  ReviewSchema,
  ReviewState,
} from "@cadre/gen/cadre/registry/v1/contract_pb";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { ComparedContract, ContractSet, ContractState as State } from "../domain/contract-set.ts";
import type { Review, ReviewState as StateOfReview } from "../domain/review.ts";
import { fromFieldUse, fromFinding } from "./convert.ts";

const states: Readonly<Record<State, ContractState>> = {
  same: ContractState.SAME,
  new: ContractState.NEW,
  changed: ContractState.CHANGED,
  follows: ContractState.FOLLOWS,
  breaks: ContractState.BREAKS,
};

const reviewStates: Readonly<Record<StateOfReview, ReviewState>> = {
  open: ReviewState.OPEN,
  approved: ReviewState.APPROVED,
  rejected: ReviewState.REJECTED,
  expired: ReviewState.EXPIRED,
};

/** A set for the wire. */
export function fromSet({ contracts, digest }: ContractSet) {
  return { digest, contracts: contracts.map(fromCompared) };
}

/** A contract beside what is registered, for the wire. */
export function fromCompared({ state, base, findings, removed, ...contract }: ComparedContract) {
  return {
    ...contract,
    state: states[state],
    baseVersion: base,
    incompatibilities: findings.map(fromFinding),
    removedFields: removed.map(fromFieldUse),
  };
}

/** The state of a filter; undefined for any. */
export function toReviewState(state: ReviewState): StateOfReview | undefined {
  return (Object.keys(reviewStates) as StateOfReview[]).find((name) => reviewStates[name] === state);
}

/** A review for the wire. */
export function fromReview(review: Review): ProtoReview {
  const { reviewId, state, requestedAt, expiresAt, brokenSubjects, decidedAt, ...texts } = review;
  const init: MessageInitShape<typeof ReviewSchema> = {
    ...texts,
    reviewId: fromUuid("rev", reviewId),
    state: reviewStates[state],
    requestedAt: timestampFromDate(requestedAt),
    expiresAt: timestampFromDate(expiresAt),
    brokenSubjects: [...brokenSubjects],
  };
  return create(ReviewSchema, decidedAt === undefined ? init : { ...init, decidedAt: timestampFromDate(decidedAt) });
}
