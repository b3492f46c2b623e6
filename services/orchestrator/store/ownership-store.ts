import { sql } from "kysely";
import pg from "pg";
import type { Database } from "../../runtime/postgres/database.ts";
import type { OrchestratorSchema } from "./schema.ts";

/** What a writer owns. */
export interface Claim {
  /** Epochs by shard. */
  readonly shards: ReadonlyMap<number, bigint>;
  /** How many shards are a fair share; what is above goes to others. */
  readonly fairShare: number;
}

/** Leases and shards, on the database's clock. All throw UNAVAILABLE. */
export interface OwnershipStore {
  /** Makes a writer. `previousAreDead` fences all others at once. */
  register(process: string, leaseMs: number, previousAreDead: boolean): Promise<bigint>;
  /** Renews the lease, takes over what is free, and says what the writer has; undefined if it is fenced. */
  claim(writer: bigint, leaseMs: number): Promise<Claim | undefined>;
  /**
   * Gives shards up, of which nothing may be under way any more, and says which
   * those are: not the ones whose entries wait for the relay, as the next
   * owner's would overtake them.
   */
  release(writer: bigint, shards: readonly number[]): Promise<readonly number[]>;
  /** Fences the writer itself and gives all up. */
  retire(writer: bigint): Promise<void>;
  /** The database's clock, in milliseconds since the epoch. */
  clock(): Promise<number>;
  /** Removes a portion of what nobody needs any more; how many rows. */
  purge(writer: bigint, portion: number): Promise<number>;
}

/** Ownership in PostgreSQL. */
export class PostgresOwnershipStore implements OwnershipStore {
  readonly #database: Database<OrchestratorSchema>;

  constructor(database: Database<OrchestratorSchema>) {
    this.#database = database;
  }

  async register(process: string, leaseMs: number, previousAreDead: boolean): Promise<bigint> {
    const { rows } = await sql<{ writer: bigint }>`
      select register_writer(${process}, ${leaseMs}, ${previousAreDead}) as writer`.execute(this.#database.engine);
    const row = rows[0];
    if (row === undefined) throw new TypeError("no writer was registered");
    return row.writer;
  }

  async claim(writer: bigint, leaseMs: number): Promise<Claim | undefined> {
    try {
      const { rows } = await sql<{ shard: number; epoch: bigint; fair_share: number }>`
        select * from claim_shards(${writer}::bigint, ${leaseMs})`.execute(this.#database.engine);
      return {
        shards: new Map(rows.map((row) => [row.shard, row.epoch])),
        fairShare: rows[0]?.fair_share ?? 0,
      };
    } catch (error) {
      if (error instanceof pg.DatabaseError && error.code === "CF001") return undefined;
      throw error;
    }
  }

  async release(writer: bigint, shards: readonly number[]): Promise<readonly number[]> {
    const { rows } = await sql<{ released: number[] }>`
      select release_shards(${writer}::bigint, ${shards}::smallint[]) as released`.execute(this.#database.engine);
    return rows[0]?.released ?? [];
  }

  async retire(writer: bigint): Promise<void> {
    await sql`select retire_writer(${writer}::bigint)`.execute(this.#database.engine);
  }

  async clock(): Promise<number> {
    const { rows } = await sql<{ now: number }>`
      select extract(epoch from clock_timestamp())::float8 * 1000 as now`.execute(this.#database.engine);
    return rows[0]?.now ?? Date.now();
  }

  async purge(writer: bigint, portion: number): Promise<number> {
    const { rows } = await sql<{ gone: number }>`select purge(${writer}::bigint, ${portion}) as gone`.execute(
      this.#database.engine,
    );
    return rows[0]?.gone ?? 0;
  }
}
