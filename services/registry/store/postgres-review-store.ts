import { sql, type Transaction } from "kysely";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { ComparedContract, Contract } from "../domain/contract-set.ts";
import type { Review, ReviewState } from "../domain/review.ts";
import type { Page } from "./registry-store.ts";
import type { FullReview, ReviewChange, ReviewFilter, ReviewRequest, ReviewView } from "./review-store.ts";
import type { RegistrySchema } from "./schema.ts";

interface ReviewRow {
  readonly review_id: string;
  readonly state: ReviewState;
  readonly digest: string;
  readonly reason: string;
  readonly requested_by: string;
  readonly requested_at: Date;
  readonly expires_at: Date;
  readonly broken: string[];
  readonly decided_by: string;
  readonly decided_at: Date | null;
  readonly decision_reason: string;
}

interface FullRow extends ReviewRow {
  readonly files: string | null;
  readonly compared: string;
}

/** Broken subjects that are told with a review. */
const maxBroken = 100;
const state = sql`case when state = 'open' and expires_at <= clock_timestamp() then 'expired' else state end`;
const columns = sql`review_id, ${state} as state, digest, reason, requested_by, requested_at, expires_at, decided_by,
  decided_at, decision_reason, array(
    select subject from review_subject s where s.review_id = review.review_id and breaks
     order by subject limit ${maxBroken}) as broken`;

/** Reads an org's reviews within a transaction of the org's role: no statement names the org. */
export class PostgresReviewView implements ReviewView {
  protected readonly transaction: Transaction<RegistrySchema>;

  constructor(transaction: Transaction<RegistrySchema>) {
    this.transaction = transaction;
  }

  async list(filter: ReviewFilter, { offset, limit }: Page): Promise<readonly Review[]> {
    const { rows } = await sql<ReviewRow>`
      select ${columns} from review
       where (${filter.state ?? ""} = '' or ${state} = ${filter.state ?? ""})
         and (${filter.subject ?? ""} = '' or review_id in (
           select review_id from review_subject where subject = ${filter.subject ?? ""}))
       order by requested_at desc, review_id desc offset ${offset} limit ${limit}`.execute(this.transaction);
    return rows.map(toReview);
  }

  async find(reviewId: string): Promise<FullReview | undefined> {
    const { rows } = await sql<FullRow>`
      select ${columns}, files, compared from review where review_id = ${reviewId}`.execute(this.transaction);
    return rows.map(toFull)[0];
  }

  async measureOpen(): Promise<{ readonly count: number; readonly bytes: number }> {
    const { rows } = await sql<{ count: bigint; bytes: bigint }>`
      select count(*) as count, coalesce(sum(octet_length(files) + octet_length(compared)), 0)::bigint as bytes
        from review where state = 'open'`.execute(this.transaction);
    return { count: Number(rows[0]?.count ?? 0n), bytes: Number(rows[0]?.bytes ?? 0n) };
  }
}

/** The same, and changes them. */
export class PostgresReviewChange extends PostgresReviewView implements ReviewChange {
  readonly #orgId: string;

  constructor(transaction: Transaction<RegistrySchema>, orgId: string) {
    super(transaction);
    this.#orgId = orgId;
  }

  async hold(): Promise<void> {
    await sql`select pg_advisory_xact_lock(hashtextextended(${`registry reviews ${this.#orgId}`}, 0))`.execute(
      this.transaction,
    );
    await sql`
      update review set state = 'expired', files = null
       where state = 'open' and expires_at <= clock_timestamp()`.execute(this.transaction);
  }

  async findOpen(digest: string): Promise<FullReview | undefined> {
    const { rows } = await sql<FullRow>`
      select ${columns}, files, compared from review
       where digest = ${digest} and ${state} = 'open'`.execute(this.transaction);
    return rows.map(toFull)[0];
  }

  async add({ digest, reason, requestedBy, files, compared }: ReviewRequest): Promise<Review> {
    const reviewId = toUuid("rev", newId("rev"));
    await sql`
      insert into review (review_id, org_id, digest, reason, requested_by, files, compared)
      values (${reviewId}, ${this.#orgId}, ${digest}, ${reason}, ${requestedBy}, ${JSON.stringify(files)},
        ${JSON.stringify(compared)})`.execute(this.transaction);
    const subjects = compared.map(({ subject }) => subject);
    const breaks = compared.map((one) => one.state === "breaks");
    await sql`
      insert into review_subject (org_id, review_id, subject, breaks)
      select ${this.#orgId}::uuid, ${reviewId}::uuid, s, b
        from unnest(${subjects}::text[], ${breaks}::boolean[]) as one (s, b)`.execute(this.transaction);
    return this.#reviewOf(reviewId);
  }

  async remove(reviewId: string): Promise<void> {
    await sql`delete from review where review_id = ${reviewId} and state = 'open'`.execute(this.transaction);
  }

  async decide(
    reviewId: string,
    decided: "approved" | "rejected",
    { by, reason }: { readonly by: string; readonly reason: string },
  ): Promise<Review> {
    await sql`
      update review set state = ${decided}, files = null, decided_by = ${by}, decided_at = clock_timestamp(),
             decision_reason = ${reason}
       where review_id = ${reviewId} and state = 'open'`.execute(this.transaction);
    return this.#reviewOf(reviewId);
  }

  async #reviewOf(reviewId: string): Promise<Review> {
    const found = await this.find(reviewId);
    if (found === undefined) throw new Error("a review was neither stored nor found");
    return found.review;
  }
}

function toFull(row: FullRow): FullReview {
  return {
    review: toReview(row),
    files: JSON.parse(row.files ?? "[]") as readonly Contract[],
    compared: JSON.parse(row.compared) as readonly ComparedContract[],
  };
}

function toReview(row: ReviewRow): Review {
  return {
    reviewId: row.review_id,
    state: row.state,
    digest: row.digest,
    reason: row.reason,
    requestedBy: row.requested_by,
    requestedAt: row.requested_at,
    expiresAt: row.expires_at,
    brokenSubjects: row.broken,
    decidedBy: row.decided_by,
    decidedAt: row.decided_at ?? undefined,
    decisionReason: row.decision_reason,
  };
}
