import type pg from "pg";
import { storedId } from "./embedded-witness.ts";
import { InfrastructureError, type Random } from "./fault-driver.ts";

/** A run as it is stored. */
export interface StoredRun {
  readonly runId: string;
  readonly head: number;
  readonly chain: Buffer;
  readonly ended: boolean;
}

/** The run of each id, which may be a session's with one turn. */
export async function readStoredRuns(
  database: pg.Client,
  ids: Iterable<string>,
): Promise<ReadonlyMap<string, StoredRun>> {
  const byUuid = new Map([...ids].map((id) => [storedId(id), id]));
  const { rows } = await database.query<{
    owner: string;
    run_id: string;
    head: number;
    chain: Buffer;
    ended: boolean;
  }>(
    `select coalesce(session_id, run_id) as owner, run_id, head, chain, ended
       from run where coalesce(session_id, run_id) = any($1::uuid[])`,
    [[...byUuid.keys()]],
  );
  return new Map(
    rows.map((row) => [
      byUuid.get(row.owner) ?? "",
      {
        runId: row.run_id,
        head: row.head,
        chain: row.chain,
        ended: row.ended,
      },
    ]),
  );
}

/** Changes one bit of a byte of an entry's body, its hash, or the chain of the run's row. */
export async function changeByte(database: pg.Client, random: Random, run: StoredRun): Promise<void> {
  const seq = random.between(1, run.head);
  switch (random.pick(["body", "body", "body", "hash", "chain"] as const)) {
    case "chain":
      return await changeColumn(database, random, "run", "chain", "run_id = $1", [run.runId]);
    case "hash":
      return await changeColumn(database, random, "entry", "hash", "run_id = $1 and seq = $2", [run.runId, seq]);
    case "body":
      return await changeColumn(database, random, "entry", "body", "run_id = $1 and seq = $2", [run.runId, seq]);
  }
}

/** Has two runs change an entry of the same number. */
export async function swapEntries(
  database: pg.Client,
  random: Random,
  one: StoredRun,
  other: StoredRun,
): Promise<void> {
  // The first ones may be alike but for what they name.
  const seq = random.between(2, Math.min(one.head, other.head));
  await expectRows(
    database,
    2,
    `update entry e set kind = o.kind, body = o.body, hash = o.hash from entry o
      where e.seq = $3 and o.seq = $3
        and ((e.run_id = $1 and o.run_id = $2) or (e.run_id = $2 and o.run_id = $1))`,
    [one.runId, other.runId, seq],
  );
}

/** Deletes the last entries. */
export async function deleteTail(database: pg.Client, random: Random, run: StoredRun): Promise<void> {
  const count = random.between(1, Math.min(3, run.head - 1));
  await expectRows(database, count, "delete from entry where run_id = $1 and seq > $2", [run.runId, run.head - count]);
}

/** Restores a run's row as it was; its entries stay. */
export async function restoreRow(database: pg.Client, old: StoredRun): Promise<void> {
  await expectRows(database, 1, "update run set head = $2, chain = $3 where run_id = $1 and head > $2", [
    old.runId,
    old.head,
    old.chain,
  ]);
}

async function changeColumn(
  database: pg.Client,
  random: Random,
  table: "entry" | "run",
  column: string,
  where: string,
  values: readonly unknown[],
): Promise<void> {
  const { rows } = await database.query<{ bytes: Buffer }>(`select ${column} as bytes from ${table} where ${where}`, [
    ...values,
  ]);
  const bytes = rows[0]?.bytes;
  if (bytes === undefined || bytes.length === 0) throw new InfrastructureError(`no ${column} to damage in ${table}`);
  const changed = Buffer.from(bytes);
  const place = random.between(0, changed.length - 1);
  changed[place] = (changed[place] ?? 0) ^ (1 << random.between(0, 7));
  const given = [...values, changed];
  await expectRows(database, 1, `update ${table} set ${column} = $${given.length} where ${where}`, given);
}

async function expectRows(
  database: pg.Client,
  count: number,
  statement: string,
  values: readonly unknown[],
): Promise<void> {
  const { rowCount } = await database.query(statement, [...values]);
  if (rowCount !== count) throw new InfrastructureError(`damaged ${rowCount} rows instead of ${count}: ${statement}`);
}
