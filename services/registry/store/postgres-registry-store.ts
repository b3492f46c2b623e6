import { sql, type Transaction } from "kysely";
import type { Database } from "../../runtime/postgres/database.ts";
import type { ReadSchema, Reference } from "../domain/schema.ts";
import type { OwnSettings } from "../domain/settings.ts";
import type { FieldReadChange } from "./field-read-store.ts";
import { PostgresFieldReadChange } from "./postgres-field-read-store.ts";
import { PostgresRegistryView } from "./postgres-registry-view.ts";
import { PostgresReviewChange } from "./postgres-review-store.ts";
import type { RegistryChange, RegistryStore, RegistryView, VersionRow } from "./registry-store.ts";
import type { ReviewChange } from "./review-store.ts";
import type { RegistrySchema } from "./schema.ts";

/** The registry in PostgreSQL, as the role that row-level security binds to the org. */
export class PostgresRegistryStore implements RegistryStore {
  readonly #database: Database<RegistrySchema>;

  constructor(database: Database<RegistrySchema>) {
    this.#database = database;
  }

  read<T>(orgId: string, work: (view: RegistryView) => Promise<T>): Promise<T> {
    return this.#database.asOrg(orgId, (transaction) => work(new PostgresRegistryView(transaction)));
  }

  change<T>(orgId: string, subjects: readonly string[], work: (change: RegistryChange) => Promise<T>): Promise<T> {
    return this.#database.asOrg(orgId, async (transaction) => {
      // A subject that is new has no row to lock. Two names with one hash wait for each other, and no more; in one
      // order, so that they never wait for ever.
      const names = subjects.map((subject) => `registry ${orgId} ${subject}`);
      await sql`
        select pg_advisory_xact_lock(key)
          from (select hashtextextended(name, 0) as key from unnest(${names}::text[]) as name order by key) locks`.execute(
        transaction,
      );
      return work(new PostgresRegistryChange(transaction, orgId));
    });
  }

  async rehearse<T>(
    orgId: string,
    subjects: readonly string[],
    work: (change: RegistryChange) => Promise<T>,
  ): Promise<T> {
    const { promise: result, resolve } = Promise.withResolvers<T>();
    const takenBack = new Error("a rehearsal is taken back");
    try {
      await this.change(orgId, subjects, async (change) => {
        resolve(await work(change));
        throw takenBack;
      });
    } catch (thrown) {
      if (thrown !== takenBack) throw thrown;
    }
    return result;
  }
}

class PostgresRegistryChange extends PostgresRegistryView implements RegistryChange {
  override readonly reviews: ReviewChange;
  override readonly fieldReads: FieldReadChange;
  readonly #transaction: Transaction<RegistrySchema>;
  readonly #orgId: string;

  constructor(transaction: Transaction<RegistrySchema>, orgId: string) {
    super(transaction);
    this.#transaction = transaction;
    this.#orgId = orgId;
    this.reviews = new PostgresReviewChange(transaction, orgId);
    this.fieldReads = new PostgresFieldReadChange(transaction, orgId);
  }

  async hold(references: readonly Reference[]): Promise<boolean> {
    const wanted = new Map(references.map(({ subject, version }) => [`${version} ${subject}`, { subject, version }]));
    if (wanted.size === 0) return true;
    // In one order, so that two transactions never wait for each other.
    const held = await this.#transaction
      .selectFrom("subject_version")
      .select("version")
      .where((where) => where.or([...wanted.values()].map((one) => where.and(one))))
      .where("deleted", "=", false)
      .orderBy("subject")
      .orderBy("version")
      .forShare()
      .execute();
    return held.length === wanted.size;
  }

  async addSchema(schema: ReadSchema, referencedIds: readonly number[]): Promise<number> {
    const known = await this.schemaIdOf(schema.digest);
    if (known !== undefined) return known;
    const inserted = await this.#transaction
      .insertInto("schema")
      .values({
        org_id: this.#orgId,
        digest: schema.digest,
        schema_type: schema.type,
        text: schema.text,
        descriptor: schema.descriptor ?? null,
      })
      // Registered under another subject at the same time: the statement waits for the outcome.
      .onConflict((conflict) => conflict.constraint("schema_content").doNothing())
      .returning("schema_id")
      .executeTakeFirst();
    if (inserted === undefined) {
      const id = await this.schemaIdOf(schema.digest);
      if (id === undefined) throw new Error("a schema was neither stored nor found");
      return id;
    }
    const { schema_id } = inserted;
    const rows = schema.references.map((reference, position) => {
      const referenced_id = referencedIds[position];
      if (referenced_id === undefined) throw new TypeError("each reference has the id of its schema");
      return { ...reference, schema_id, position, org_id: this.#orgId, referenced_id };
    });
    if (rows.length > 0) await this.#transaction.insertInto("schema_reference").values(rows).execute();
    return schema_id;
  }

  async addVersion(row: Omit<VersionRow, "deleted">, by: string, reviewId: string | undefined): Promise<void> {
    const { subject, version, schemaId, forcedReason } = row;
    const origin = { forced_reason: forcedReason, registered_by: by, review_id: reviewId ?? null };
    await this.#transaction
      .insertInto("subject_version")
      .values({ org_id: this.#orgId, subject, version, schema_id: schemaId, ...origin })
      .execute();
  }

  async markPushed(versions: readonly Pick<VersionRow, "subject" | "version">[], setDigest: string): Promise<void> {
    if (versions.length === 0) return;
    const named = versions.map(({ subject, version }) => ({ subject, version }));
    await this.#transaction
      .updateTable("subject_version")
      .set({ set_digest: setDigest })
      .where((where) => where.or(named.map((one) => where.and(one))))
      .execute();
  }

  async markDeleted(subject: string, versions: readonly number[]): Promise<void> {
    if (versions.length === 0) return;
    await this.#transaction
      .updateTable("subject_version")
      .set({ deleted: true })
      .where("subject", "=", subject)
      .where("version", "in", versions)
      .execute();
  }

  async remove(subject: string, versions: readonly number[]): Promise<void> {
    if (versions.length === 0) return;
    await this.#transaction
      .deleteFrom("subject_version")
      .where("subject", "=", subject)
      .where("version", "in", versions)
      .execute();
  }

  async putSettings(subject: string, { compatibility, mode }: OwnSettings): Promise<void> {
    if (compatibility === undefined && mode === undefined) {
      await this.#transaction.deleteFrom("setting").where("subject", "=", subject).execute();
      return;
    }
    const values = { compatibility: compatibility ?? null, mode: mode ?? null };
    await this.#transaction
      .insertInto("setting")
      .values({ org_id: this.#orgId, subject, ...values })
      .onConflict((conflict) => conflict.columns(["org_id", "subject"]).doUpdateSet(values))
      .execute();
  }
}
