/**
 * The audit log as its own outbox. Invariants:
 *
 * 1. An org's entries are read in the order of their numbers, which have no
 *    holes: `append` holds the org's head until it commits.
 * 2. A batch begins behind the relayed number and leaves nothing out, so what
 *    two relays publish at once is in order all the same, with repetitions.
 * 3. Nothing that an append locks is locked here: what was relayed is kept in a
 *    table of its own.
 * 4. No org waits for another one's flood: who was relayed longest ago is next.
 *
 * A look goes over the heads of all orgs: some 10 ms for 10,000 of them, once a
 * second while nothing happens.
 */
import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type AuditRecorded, AuditRecordedSchema } from "@cadre/gen/cadre/events/v1/audit_pb";
import { type Kysely, sql } from "kysely";
import type { EventCodec } from "../../runtime/bus/envelope.ts";
import type { RelaySource } from "../../runtime/bus/relay.ts";
import { agentAudit } from "../../runtime/bus/topics.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { ChainedEntry } from "../domain/audit-chain.ts";
import type { RelayLease } from "../store/relay-lease.ts";
import type { CredentialsSchema } from "../store/schema.ts";

/** Up to which number each org's log is covered, by the org's UUID. */
export type AuditPosition = ReadonlyMap<string, bigint>;

export interface AuditRelaySourceOptions {
  readonly engine: Kysely<CredentialsSchema>;
  readonly codec: EventCodec;
  readonly lease: Pick<RelayLease, "hold">;
}

/** An entry; without its fields of an org whose entries somebody removed. */
interface Row extends Omit<ChainedEntry, "seq"> {
  readonly chosen: string;
  readonly upto: bigint;
  /** Of all orgs, how many entries wait behind the batch. */
  readonly behind: bigint;
  readonly seq: bigint | null;
}

/** Reads what was appended and the bus does not have. */
export function createAuditRelaySource(options: AuditRelaySourceOptions): RelaySource<AuditPosition> {
  const { engine, codec, lease } = options;
  return {
    async read(limit) {
      if (!(await lease.hold())) return undefined;
      const { rows } = await sql<Row>`
        with waiting as (
          select h.org_id, h.seq as last, coalesce(r.seq, 0) as relayed,
                 sum(h.seq - coalesce(r.seq, 0)) over (order by r.at nulls first, h.org_id) as total
            from audit_head h left join audit_relayed r using (org_id) where h.seq > coalesce(r.seq, 0)
        ), chosen as (
          select org_id, relayed, least(last, last + ${limit} - total)::bigint as upto
            from waiting where total - (last - relayed) < ${limit}
        ), behind as (
          select ((select sum(last - relayed) from waiting) - (select sum(upto - relayed) from chosen))::bigint as behind
        )
        select c.org_id as chosen, c.upto, behind.behind, e.*
          from chosen c cross join behind
          left join audit_entry e on e.org_id = c.org_id and e.seq > c.relayed and e.seq <= c.upto
         order by c.org_id, e.seq`.execute(engine);
      const [first] = rows;
      if (first === undefined) return undefined;
      // Of removed entries nothing is told but the hole that they leave in the numbers.
      const entries = rows.filter((row): row is Row & ChainedEntry => row.seq !== null);
      const events = entries.map((entry) => {
        const fact = toAuditRecorded(entry);
        return codec.encode(agentAudit, fact, { orgId: fromUuid("org", entry.org_id) });
      });
      const position = new Map(rows.map(({ chosen, upto }) => [chosen, upto]));
      return { events: await Promise.all(events), position, more: first.behind > 0n };
    },

    async markRelayed(position) {
      await sql`
        insert into audit_relayed (org_id, seq)
        select * from unnest(${[...position.keys()]}::uuid[], ${[...position.values()]}::bigint[])
        on conflict (org_id) do update
           set seq = greatest(audit_relayed.seq, excluded.seq), at = clock_timestamp()`.execute(engine);
    },

    async lag() {
      const { rows } = await sql<{ lag: bigint }>`
        select coalesce(sum(h.seq - coalesce(r.seq, 0)), 0)::bigint as lag
          from audit_head h left join audit_relayed r using (org_id)`.execute(engine);
      return rows[0]?.lag ?? 0n;
    },
  };
}

function toAuditRecorded(entry: ChainedEntry): AuditRecorded {
  const { type, actor, action, resource, decision, reason, source, count } = entry;
  return create(AuditRecordedSchema, {
    metadata: {
      eventId: fromUuid("evt", entry.event_id),
      seq: entry.seq,
      at: timestampFromDate(entry.at),
      orgId: fromUuid("org", entry.org_id),
      traceId: entry.trace_id,
      requestId: entry.request_id,
    },
    ...{ type, actor, action, resource, decision, reason, source, count },
    previousHash: entry.previous_hash,
    hash: entry.hash,
  });
}
