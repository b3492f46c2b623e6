/**
 * The journal as the outbox: what writers appended and the bus does not have.
 * Invariants:
 *
 * 1. A writer's entries are read in the order of its positions, which have no
 *    holes: `append` holds the writer's row until it commits.
 * 2. The logs of fenced writers come first, the oldest one first, and are read
 *    by the live writer with the lowest number; the others wait for it. So what
 *    a new owner says of a session never overtakes what the old one said.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { EntryOriginSchema } from "@cadre/gen/cadre/orchestrator/journal/v1/entry_pb";
import { sql } from "kysely";
import type { EventCodec } from "../../runtime/bus/envelope.ts";
import type { BusEvent } from "../../runtime/bus/event-bus.ts";
import type { RelaySource } from "../../runtime/bus/relay.ts";
import { agentRuns, conversationTurns } from "../../runtime/bus/topics.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { damaged } from "../domain/run.ts";
import { decodeEntry, entryKind } from "../store/entry-codec.ts";
import type { OrchestratorSchema } from "../store/schema.ts";
import { toRunChanged } from "./run-facts.ts";
import { toTurnChanged } from "./turn-facts.ts";

export interface JournalRelaySourceOptions {
  readonly database: Database<OrchestratorSchema>;
  readonly codec: EventCodec;
  /** The writer of this process; undefined while it has none. */
  readonly writer: () => bigint | undefined;
  /** Told how many entries of this process's writer wait. */
  readonly onLag: (entries: number) => void;
}

interface Row {
  readonly writer: bigint;
  /** Up to which the batch covers the log. */
  readonly upto: bigint;
  readonly last: bigint;
  readonly pos: bigint | null;
  readonly run_id: string;
  readonly org_id: string;
  readonly seq: number;
  readonly kind: number;
  readonly body: Buffer;
  readonly accepted: Buffer;
}

const factKinds = [
  entryKind["run.accepted"],
  entryKind["run.started"],
  entryKind["run.ended"],
  entryKind["run.parked"],
  entryKind["run.resumed"],
  entryKind["graph.ended"],
];

/** Entries that are looked at for each fact that is wanted: most state none. */
const entriesPerFact = 8;

/** Reads the journal for the relay of this process. */
export function createJournalRelaySource(options: JournalRelaySourceOptions): RelaySource {
  const { engine } = options.database;
  /** Whose log the last batch was read from. */
  let reading: bigint | undefined;
  return {
    async read(limit) {
      const own = options.writer();
      if (own === undefined) return undefined;
      // One statement, one snapshot: whoever sees an entry of the new owner sees that the old one is fenced (2).
      const { rows } = await sql<Row>`
        with behind as (
          select writer from writer where fenced and pos > relayed order by writer limit 1
        ), chosen as (
          select w.writer, w.relayed, w.pos as last, least(w.pos, w.relayed + ${limit * entriesPerFact}) as upto
          from writer w where w.pos > w.relayed and w.writer = case
            when not exists (select 1 from behind) then ${own}::bigint
            when ${own}::bigint = (select min(writer) from writer where not fenced) then (select writer from behind)
          end
        )
        select c.writer, c.upto, c.last, e.pos, e.run_id, e.org_id, e.seq, e.kind, e.body, a.body as accepted
        from chosen c
        left join entry e on e.writer = c.writer and e.pos > c.relayed and e.pos <= c.upto
          and e.kind = any(${factKinds}::smallint[])
        left join entry a on a.run_id = e.run_id and a.seq = 1
        order by e.pos`.execute(engine);
      const [first] = rows;
      if (first === undefined) return undefined;
      reading = first.writer;
      const events: BusEvent[] = [];
      for (const row of rows) if (row.pos !== null) events.push(...(await toEvents(row, options.codec)));
      return { events, position: first.upto, more: first.last > first.upto };
    },

    async markRelayed(position) {
      if (reading === undefined) return;
      const row = await engine
        .updateTable("writer")
        .set({ relayed: position })
        .where("writer", "=", reading)
        .where("relayed", "<", position)
        .returning(["pos", "relayed"])
        .executeTakeFirst();
      if (row !== undefined && reading === options.writer()) options.onLag(Number(row.pos - row.relayed));
    },

    async lag() {
      const { rows } = await sql<{ lag: bigint }>`
        select coalesce(sum(pos - relayed), 0)::bigint as lag from writer where fenced or writer = ${options.writer() ?? 0n}`.execute(
        engine,
      );
      return rows[0]?.lag ?? 0n;
    },
  };
}

async function toEvents(row: Row, codec: EventCodec): Promise<readonly BusEvent[]> {
  const { runAccepted: origin } = fromBinary(EntryOriginSchema, row.accepted, { readUnknownFields: false });
  if (origin === undefined) throw damaged("does not begin with its acceptance");
  const runId = fromUuid("run", row.run_id);
  // The acceptance of a run of a graph is large, and states nothing.
  if (row.kind === entryKind["graph.accepted"] && origin.sessionId === "") return [];
  const journaled = {
    orgId: fromUuid("org", row.org_id),
    runId,
    seq: row.seq,
    entry: decodeEntry(row.body),
    origin,
  };
  const from = { orgId: journaled.orgId, traceparent: origin.traceparent };
  const turn = toTurnChanged(journaled);
  const run = toRunChanged(journaled);
  return [
    ...(turn === undefined ? [] : [await codec.encode(conversationTurns, turn, from)]),
    ...(run === undefined ? [] : [await codec.encode(agentRuns, run, from)]),
  ];
}
