import { type Kysely, sql, type Transaction } from "kysely";
import { emptyChain } from "../domain/chain.ts";
import { damaged } from "../domain/run.ts";
import type { OrchestratorSchema } from "./schema.ts";

/** An entry as it is stored, with its place in its run. */
export interface JournalEntry {
  /** From 1, without gaps. */
  readonly seq: number;
  readonly kind: number;
  /** A `cadre.orchestrator.journal.v1.Entry`. */
  readonly body: Uint8Array;
  readonly hash: Uint8Array;
}

/** How far a run's journal goes, as the run's row says. */
export interface JournalEnd {
  /** The run's UUID as text. */
  readonly run_id: string;
  readonly head: number;
  readonly chain: Uint8Array;
}

const pageEntries = 2_000;

/**
 * Selects with a run's row, in one statement and so at one moment, whether
 * entries stand behind its head: the row is an old one then, put back, and what
 * the run did since would be done again.
 */
export function goesOnBehindHead() {
  return sql<boolean>`exists (select from entry behind where behind.run_id = run.run_id and behind.seq > run.head)`.as(
    "goes_on_behind_head",
  );
}

/** Throws DATA_LOSS for a row that `goesOnBehindHead`. */
export function assertNewestRow(row: { readonly goes_on_behind_head: boolean; readonly head: number }): void {
  if (row.goes_on_behind_head) throw damaged(`goes on behind its entry ${row.head}, with which its row ends`);
}

/**
 * Reads a run's journal in pages, in order, and checks the chain over all of it
 * on the way: whoever has read to the end knows that no row was changed, moved,
 * left out or added below the head.
 *
 * @throws AppError DATA_LOSS, naming the entry, at the first one that is not what was stored
 */
export async function* readJournal(
  executor: Kysely<OrchestratorSchema> | Transaction<OrchestratorSchema>,
  { run_id: runUuid, head, chain: end }: JournalEnd,
): AsyncGenerator<readonly JournalEntry[]> {
  if (head === 0) return;
  let chain: Uint8Array = emptyChain;
  let last = 0;
  let reading = readPage(executor, runUuid, last, head, chain);
  while (last < head) {
    const page = await reading;
    for (const { seq, intact } of page) {
      last += 1;
      if (seq !== last) throw damaged(`misses its entry ${last}`);
      if (!intact) throw damaged(`was changed at its entry ${seq}`);
    }
    const lastRow = page.at(-1);
    if (lastRow === undefined) throw damaged(`misses its entry ${last + 1}`);
    chain = lastRow.hash;
    if (last < head) {
      // Read while this page is worked on.
      reading = readPage(executor, runUuid, last, head, chain);
      reading.catch(() => undefined); // told when it is its turn
    }
    yield page;
  }
  if (Buffer.compare(chain, end) !== 0) throw damaged("does not end where it should");
}

interface CheckedEntry extends JournalEntry {
  readonly intact: boolean;
}

/**
 * One page. PostgreSQL hashes what it reads: the same chain as `chainHash`, in
 * a third of the time, and beside this process.
 */
async function readPage(
  executor: Kysely<OrchestratorSchema> | Transaction<OrchestratorSchema>,
  runUuid: string,
  after: number,
  head: number,
  chain: Uint8Array,
): Promise<readonly CheckedEntry[]> {
  // A reader may see entries past a head that moved on since: only what belongs to this head counts.
  const { rows } = await sql<CheckedEntry>`
    select seq, kind, body, hash, hash = sha256(
        coalesce(lag(hash) over (order by seq), ${Buffer.from(chain)}::bytea)
        || uuid_send(run_id) || int4send(seq) || int2send(kind) || body) as intact
    from (
      select run_id, seq, kind, body, hash from entry
      where run_id = ${runUuid} and seq > ${after} and seq <= ${head} order by seq limit ${pageEntries}) page
    order by seq`.execute(executor);
  return rows;
}
