import { sql, type Transaction } from "kysely";
import type { FieldRead, FieldReadChange, FieldReads, KeptRead } from "./field-read-store.ts";
import type { RegistrySchema } from "./schema.ts";

/** Reads what is known of an org's fields within a transaction of the org's role: no statement names the org. */
export class PostgresFieldReads implements FieldReads {
  protected readonly transaction: Transaction<RegistrySchema>;

  constructor(transaction: Transaction<RegistrySchema>) {
    this.transaction = transaction;
  }

  async of(typeNames: readonly string[]): Promise<readonly KeptRead[]> {
    if (typeNames.length === 0) return [];
    const { rows } = await sql<KeptRead>`
      select type_name as "typeName", field, consumer_group as "group",
             extract(epoch from last_read_at)::double precision * 1000 as "lastReadMs",
             extract(epoch from clock_timestamp() - last_read_at)::double precision * 1000 as "agoMs"
        from field_read where type_name = any(${[...typeNames]}::text[])
       order by last_read_at desc, consumer_group`.execute(this.transaction);
    return rows.map((row) => ({ ...row, lastReadMs: Math.floor(row.lastReadMs), agoMs: Math.max(0, row.agoMs) }));
  }
}

/** The same, and keeps more. */
export class PostgresFieldReadChange extends PostgresFieldReads implements FieldReadChange {
  readonly #orgId: string;

  constructor(transaction: Transaction<RegistrySchema>, orgId: string) {
    super(transaction);
    this.#orgId = orgId;
  }

  async keep(reads: readonly FieldRead[]): Promise<void> {
    const latest = new Map<string, FieldRead>();
    for (const read of reads) {
      const key = JSON.stringify([read.typeName, read.field, read.group]);
      if (read.lastReadAt.getTime() > (latest.get(key)?.lastReadAt.getTime() ?? -1)) latest.set(key, read);
    }
    // In one order, so that two reports never wait for each other for ever.
    const rows = [...latest].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, read]) => read);
    await sql`
      insert into field_read (org_id, type_name, field, consumer_group, last_read_at)
      select ${this.#orgId}::uuid, t, f, g, least(at, clock_timestamp())
        from unnest(${rows.map(({ typeName }) => typeName)}::text[], ${rows.map(({ field }) => field)}::text[],
                    ${rows.map(({ group }) => group)}::text[],
                    ${rows.map(({ lastReadAt }) => lastReadAt.toISOString())}::timestamptz[]) as one (t, f, g, at)
          on conflict (org_id, type_name, field, consumer_group)
             do update set last_read_at = greatest(field_read.last_read_at, excluded.last_read_at)`.execute(
      this.transaction,
    );
  }
}
