import { sql, type Transaction } from "kysely";
import { toUuid } from "../../ids/id.ts";
import type { Database } from "../../postgres/database.ts";
import type { Fact } from "../topics.ts";
import type { Consumer, DecodedEvent, Handler } from "./handler.ts";

// Invariants:
// D1. The record that a group handled an event and the handler's effect commit in
//     one transaction: the effect is there exactly if the record is.
// D2. Of attempts at the same event at once, one holds the record's row from its
//     first statement on; the others wait for its transaction to end.
// D3. An attempt whose signal aborted does not commit: its transaction rolls
//     back at once, and whatever the handler still sends in it is refused. A
//     statement under way ends by itself, in the time that an attempt may take.

/** What makes the effect of a fact: by the transaction that it is given, and by nothing else. */
export type FactHandler<M extends Fact, Schema> = (
  decoded: DecodedEvent<M>,
  transaction: Transaction<Schema>,
  signal: AbortSignal,
) => Promise<void>;

/**
 * Runs the handler once for each event and group, whatever is delivered how
 * often. The transaction is bound to the event's org. Needs the table of
 * `createHandledEventTable` in the schema.
 */
export function dedup<M extends Fact, Schema>(
  { group }: Consumer,
  database: Database<Schema>,
  handle: FactHandler<M, Schema>,
  attemptMs: number,
): Handler<DecodedEvent<M>> {
  return (decoded, signal) => {
    const orgId = toUuid("org", decoded.orgId);
    return database.asOrg(orgId, async (transaction) => {
      const { rows } = await sql`
        insert into handled_event (org_id, consumer_group, event_id, handled_at)
        values (${orgId}, ${group}, ${toUuid("evt", decoded.eventId)}, clock_timestamp())
        on conflict do nothing returning ${statementsWithin(attemptMs)}`.execute(transaction);
      if (rows.length === 0) return "repeated";
      await untilAborted(() => handle(decoded, transaction, signal), signal); // D3
      return "handled";
    });
  };
}

/** Bounds each further statement of a transaction (D3), where a claim's answer is asked for: no trip of its own. */
export function statementsWithin(timeoutMs: number) {
  return sql`set_config('statement_timeout', ${String(Math.ceil(timeoutMs))}, true)`;
}

/** Begins nothing if the signal has aborted, and rejects as soon as it does, whether or not the work has ended. */
export async function untilAborted(work: () => Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    await Promise.race([work(), promise]);
    signal.throwIfAborted();
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
