import type { ContractService } from "@cadre/gen/cadre/registry/v1/contract_pb";
import type { ServiceImpl } from "@connectrpc/connect";
import type { AuditSink } from "../../runtime/audit/audit-sink.ts";
import { toUuid } from "../../runtime/ids/id.ts";
import { approveReview, rejectReview } from "../app/decide-review.ts";
import type { RegistryDeps } from "../app/deps.ts";
import { getReview, getReviewFile, listReviews } from "../app/read-reviews.ts";
import { requestReview } from "../app/request-review.ts";
import { forceFor, orgOf, registrantOf } from "./caller.ts";
import { fromCompared, fromReview, fromSet, toReviewState } from "./convert-contract.ts";

const defaultLimit = 100;

type ReviewMethods = "requestReview" | "listReviews" | "getReview" | "getReviewFile" | "approveReview" | "rejectReview";

/**
 * The reviews of the caller's org, a part of ContractService.
 *
 * @param audit where it is written, before it is committed, that a subject is broken
 */
export function reviewHandlers(
  deps: RegistryDeps,
  audit: AuditSink,
): Pick<ServiceImpl<typeof ContractService>, ReviewMethods> {
  return {
    async requestReview({ contracts, reason }, context) {
      return { review: fromReview(await requestReview(deps, registrantOf(context), contracts, reason)) };
    },
    async listReviews({ state, subject, offset, limit }, context) {
      const filter = { state: toReviewState(state), subject: subject === "" ? undefined : subject };
      const reviews = await listReviews(deps, orgOf(context), filter, { offset, limit: limit || defaultLimit });
      return { reviews: reviews.map(fromReview) };
    },
    async getReview({ reviewId }, context) {
      const { review, compared } = await getReview(deps, orgOf(context), toUuid("rev", reviewId));
      return { review: fromReview(review), contracts: compared.map(fromCompared) };
    },
    async getReviewFile({ reviewId, path }, context) {
      const file = await getReviewFile(deps, orgOf(context), toUuid("rev", reviewId), path);
      return { contract: { ...file, imports: [...file.imports], subjects: [...file.subjects] } };
    },
    async approveReview({ reviewId, reason }, context) {
      const onForced = (subject: string, why: string) => forceFor(context, audit, why).onForced(subject);
      const id = toUuid("rev", reviewId);
      const { review, set } = await approveReview(deps, registrantOf(context), id, reason, onForced);
      return { review: fromReview(review), contracts: fromSet(set).contracts };
    },
    async rejectReview({ reviewId, reason }, context) {
      return { review: fromReview(await rejectReview(deps, registrantOf(context), toUuid("rev", reviewId), reason)) };
    },
  };
}
