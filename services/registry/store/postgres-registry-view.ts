import { sql, type Transaction } from "kysely";
import type { OwnSettings, SettingsPair } from "../domain/settings.ts";
import type { FieldReads } from "./field-read-store.ts";
import { PostgresFieldReads } from "./postgres-field-read-store.ts";
import { PostgresReviewView } from "./postgres-review-store.ts";
import type {
  ImportedFile,
  Page,
  Presence,
  RegistryView,
  StoredSchema,
  VersionOrigin,
  VersionRow,
} from "./registry-store.ts";
import type { ReviewView } from "./review-store.ts";
import type { RegistrySchema } from "./schema.ts";

const versionColumns = [
  "subject",
  "version",
  "schema_id as schemaId",
  "deleted",
  "forced_reason as forcedReason",
] as const;
const nothingSet: OwnSettings = { compatibility: undefined, mode: undefined };

/** Reads an org's registry within a transaction of the org's role: no statement names the org. */
export class PostgresRegistryView implements RegistryView {
  readonly reviews: ReviewView;
  readonly fieldReads: FieldReads;
  readonly #transaction: Transaction<RegistrySchema>;

  constructor(transaction: Transaction<RegistrySchema>) {
    this.#transaction = transaction;
    this.reviews = new PostgresReviewView(transaction);
    this.fieldReads = new PostgresFieldReads(transaction);
  }

  async subjects(prefix: string, presence: Presence, { offset, limit }: Page): Promise<readonly string[]> {
    const isLive = sql<boolean>`bool_or(not deleted)`;
    let query = this.#transaction
      .selectFrom("subject_version")
      .select("subject")
      .where(sql<boolean>`starts_with(subject, ${prefix})`)
      .groupBy("subject")
      .orderBy("subject")
      .offset(offset)
      .limit(limit);
    if (presence === "live") query = query.having(isLive);
    if (presence === "deleted") query = query.having(sql<boolean>`not ${isLive}`);
    return (await query.execute()).map(({ subject }) => subject);
  }

  async versions(subject: string): Promise<readonly VersionRow[]> {
    const rows = await this.#transaction
      .selectFrom("subject_version")
      .select(versionColumns)
      .where("subject", "=", subject)
      .orderBy("version")
      .execute();
    return rows;
  }

  async history(subject: string, { offset, limit }: Page): Promise<readonly VersionOrigin[]> {
    const rows = await this.#transaction
      .selectFrom("subject_version")
      .leftJoin("review", "review.review_id", "subject_version.review_id")
      .select([
        ...versionColumns,
        "created_at as registeredAt",
        "registered_by as registeredBy",
        "set_digest as setDigest",
        "subject_version.review_id as reviewId",
        "requested_by as requestedBy",
      ])
      .where("subject", "=", subject)
      .orderBy("version")
      .offset(offset)
      .limit(limit)
      .execute();
    return rows.map(({ reviewId, requestedBy, ...row }) => ({
      ...row,
      reviewId: reviewId ?? undefined,
      requestedBy: requestedBy ?? "",
    }));
  }

  async schemas(schemaIds: readonly number[]): Promise<readonly StoredSchema[]> {
    if (schemaIds.length === 0) return [];
    const rows = await this.#transaction
      .selectFrom("schema")
      .select(["schema_id", "schema_type", "text", "descriptor"])
      .where("schema_id", "in", schemaIds)
      .where((where) =>
        where.exists(
          where.selectFrom("subject_version").whereRef("subject_version.schema_id", "=", "schema.schema_id"),
        ),
      )
      .execute();
    const references = await this.#transaction
      .selectFrom("schema_reference")
      .select(["schema_id", "name", "subject", "version"])
      .where("schema_id", "in", schemaIds)
      .orderBy("schema_id")
      .orderBy("position")
      .execute();
    return rows.map((row) => ({
      schemaId: row.schema_id,
      type: row.schema_type,
      text: row.text,
      descriptor: row.descriptor ?? undefined,
      references: references
        .filter(({ schema_id }) => schema_id === row.schema_id)
        .map(({ name, subject, version }) => ({ name, subject, version })),
    }));
  }

  async schemaIdOf(digest: Uint8Array): Promise<number | undefined> {
    const row = await this.#transaction
      .selectFrom("schema")
      .select("schema_id")
      .where("digest", "=", digest)
      .executeTakeFirst();
    return row?.schema_id;
  }

  async imports(schemaIds: readonly number[], limit: number): Promise<readonly ImportedFile[]> {
    if (schemaIds.length === 0) return [];
    const { rows } = await sql<{ name: string; schema_id: number; bytes: number }>`
      with recursive closure (name, schema_id) as (
        select name, referenced_id from schema_reference where schema_id = any(${[...schemaIds]}::integer[])
        union
        select r.name, r.referenced_id from closure c join schema_reference r on r.schema_id = c.schema_id
      )
      select c.name, s.schema_id, coalesce(octet_length(s.descriptor), 0) as bytes
        from closure c join schema s using (schema_id) limit ${limit}`.execute(this.#transaction);
    return rows.map(({ name, schema_id, bytes }) => ({ name, schemaId: schema_id, bytes }));
  }

  async descriptors(schemaIds: readonly number[]): Promise<ReadonlyMap<number, Uint8Array>> {
    if (schemaIds.length === 0) return new Map();
    const rows = await this.#transaction
      .selectFrom("schema")
      .select(["schema_id", "descriptor"])
      .where("schema_id", "in", schemaIds)
      .execute();
    return new Map(rows.flatMap((row) => (row.descriptor === null ? [] : [[row.schema_id, row.descriptor] as const])));
  }

  async usages(schemaId: number, limit: number): Promise<readonly VersionRow[]> {
    return this.#transaction
      .selectFrom("subject_version")
      .select(versionColumns)
      .where("schema_id", "=", schemaId)
      .orderBy("subject")
      .orderBy("version")
      .limit(limit)
      .execute();
  }

  async referencing(subject: string, version: number, limit: number): Promise<readonly number[]> {
    const rows = await this.#transaction
      .selectFrom("schema_reference")
      .select("schema_id")
      .distinct()
      .where("subject", "=", subject)
      .where("version", "=", version)
      .where((where) =>
        where.exists(
          where
            .selectFrom("subject_version")
            .whereRef("subject_version.schema_id", "=", "schema_reference.schema_id")
            .where("deleted", "=", false),
        ),
      )
      .orderBy("schema_id")
      .limit(limit)
      .execute();
    return rows.map(({ schema_id }) => schema_id);
  }

  async settings(subject: string): Promise<SettingsPair> {
    const rows = await this.#transaction
      .selectFrom("setting")
      .select(["subject", "compatibility", "mode"])
      .where("subject", "in", ["", subject])
      .execute();
    const of = (name: string): OwnSettings => {
      const row = rows.find((one) => one.subject === name);
      return row === undefined
        ? nothingSet
        : { compatibility: row.compatibility ?? undefined, mode: row.mode ?? undefined };
    };
    return { org: of(""), subject: subject === "" ? nothingSet : of(subject) };
  }

  async countSettings(): Promise<number> {
    const { rows } = await sql<{ count: bigint }>`select count(*) as count from setting where subject <> ''`.execute(
      this.#transaction,
    );
    return Number(rows[0]?.count ?? 0n);
  }

  async countSubjects(): Promise<number> {
    const { rows } = await sql<{ count: bigint }>`
      select count(distinct subject) as count from subject_version`.execute(this.#transaction);
    return Number(rows[0]?.count ?? 0n);
  }
}
