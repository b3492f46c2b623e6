import pg from "pg";
import type { BusEvent } from "../../services/runtime/bus/event-bus.ts";
import type { RelaySource } from "../../services/runtime/bus/relay.ts";

/** An outbox table as services have them, in a PostgreSQL that syncs each commit. */
export interface Outbox {
  readonly source: RelaySource;
  /** Adds events in one transaction. */
  add(events: readonly BusEvent[]): Promise<void>;
  close(): Promise<void>;
}

interface Row {
  readonly position: string;
  readonly topic: string;
  readonly key: string;
  readonly headers: Record<string, string>;
  readonly value: Buffer;
}

/** Makes the tables, in a schema of that name. */
export async function createOutbox(url: string, schema: "kafka" | "postgres"): Promise<Outbox> {
  const pool = new pg.Pool({ connectionString: url, max: 3, options: `-c search_path=outbox_${schema}` });
  await pool.query(`create schema outbox_${schema}`);
  await pool.query(`create table outbox (position bigint generated always as identity primary key, topic text not null,
    key text not null, headers jsonb not null, value bytea not null)`);
  await pool.query("create table relayed as select 0::bigint as position");
  let relayed = 0n;
  return {
    source: {
      async read(limit) {
        const { rows } = await pool.query<Row>("select * from outbox where position > $1 order by position limit $2", [
          String(relayed),
          limit,
        ]);
        const last = rows.at(-1);
        if (last === undefined) return undefined;
        return { events: rows, position: BigInt(last.position), more: rows.length === limit };
      },
      async markRelayed(position) {
        await pool.query("update relayed set position = $1", [String(position)]);
        relayed = position;
      },
      async lag() {
        const { rows } = await pool.query<{ lag: string }>("select count(*) as lag from outbox where position > $1", [
          String(relayed),
        ]);
        return BigInt(rows[0]?.lag ?? 0);
      },
    },
    async add(events) {
      await pool.query(
        `insert into outbox (topic, key, headers, value)
         select * from unnest($1::text[], $2::text[], $3::jsonb[], $4::bytea[])`,
        [
          events.map(({ topic }) => topic),
          events.map(({ key }) => key),
          events.map(({ headers }) => JSON.stringify(headers)),
          events.map(({ value }) => Buffer.from(value)),
        ],
      );
    },
    close: () => pool.end(),
  };
}
