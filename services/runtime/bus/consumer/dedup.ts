import { sql } from "kysely";
import { toUuid } from "../../ids/id.ts";
import type { Database } from "../../postgres/database.ts";
import type { Fact } from "../topics.ts";
import { type FactHandler, runBounded, statementsWithin } from "./bounded-handler.ts";
import type { Consumer, DecodedEvent, Handler } from "./handler.ts";

// Invariants:
// D1. The record that a group handled an event and the handler's effect commit in
//     one transaction: the effect is there exactly if the record is.
// D2. Of attempts at the same event at once, one holds the record's row from its
//     first statement on; the others wait for its transaction to end.
// D3. An attempt whose signal aborted does not commit: its transaction rolls
//     back at once, and whatever the handler still sends in it is refused. A
//     statement under way ends by itself, in the time that an attempt may take.

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
      await runBounded(handle, decoded, transaction, signal); // D3
      return "handled";
    });
  };
}
