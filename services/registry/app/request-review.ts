import { AppError } from "../../runtime/errors/app-error.ts";
import { assertContractSet, type Contract, isChanged, subjectsOf } from "../domain/contract-set.ts";
import { assertReviewRoom, movedSubjects, type Review } from "../domain/review.ts";
import { type Registrant, readRoom } from "./add-version.ts";
import type { RegistryDeps } from "./deps.ts";
import { addSet, withoutNewIds } from "./push-contracts.ts";

/**
 * Stores a set that breaks for an admin to decide on. The same set has one open
 * review: the one that it has, or a new one if what the set changes has changed.
 *
 * @throws AppError as `pushContracts`, but for SCHEMA_INCOMPATIBLE
 * @throws AppError INVALID_ARGUMENT if the set breaks nothing
 * @throws AppError LIMIT_EXCEEDED if too many reviews are open, or too large ones
 */
export async function requestReview(
  { store, limits }: RegistryDeps,
  registrant: Registrant,
  contracts: readonly Contract[],
  reason: string,
): Promise<Review> {
  assertContractSet(contracts);
  const room = await readRoom(limits, registrant.orgId);
  const origin = { by: registrant.subject, reason };
  const set = withoutNewIds(
    await store.rehearse(registrant.orgId, contracts.flatMap(subjectsOf), (change) =>
      addSet(change, contracts, room, origin),
    ),
  );
  const compared = set.contracts.filter(isChanged);
  if (!compared.some(({ state }) => state === "breaks")) {
    throw new AppError("INVALID_ARGUMENT", "the contracts break nothing: push them", {
      violations: [{ field: "contracts", message: "they break nothing", rule: "review" }],
    });
  }
  return store.change(registrant.orgId, [], async ({ reviews }) => {
    await reviews.hold();
    const before = await reviews.findOpen(set.digest);
    if (before !== undefined) {
      if (movedSubjects(before.compared, compared).length === 0) return before.review;
      await reviews.remove(before.review.reviewId);
    }
    const comparedBytes = Buffer.byteLength(JSON.stringify(compared));
    const bytes = Buffer.byteLength(JSON.stringify(contracts)) + comparedBytes;
    assertReviewRoom(await reviews.measureOpen(), { bytes, comparedBytes });
    return reviews.add({
      digest: set.digest,
      reason,
      requestedBy: registrant.subject,
      files: contracts.map(({ path, schema, imports, subjects }) => ({ path, schema, imports, subjects })),
      compared,
    });
  });
}
