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
import { sql } from "kysely";
import type { EventCodec } from "../../runtime/bus/envelope.ts";
import type { BusEvent } from "../../runtime/bus/event-bus.ts";
import type { RelaySource } from "../../runtime/bus/relay.ts";
import { agentRuns, agentSteps, agentTools, conversationTurns } from "../../runtime/bus/topics.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { decodeEntry, entryKind } from "../store/entry-codec.ts";
import type { OrchestratorSchema } from "../store/schema.ts";
import type { JournaledEntry } from "./fact-metadata.ts";
import { toRunChanged } from "./run-facts.ts";
import type { RunOutline } from "./run-outline.ts";
import { type OutlinedEntry, RunOutlines } from "./run-outlines.ts";
import { toStepChanged } from "./step-facts.ts";
import { toToolCalled } from "./tool-facts.ts";
import { toTurnChanged } from "./turn-facts.ts";

export interface JournalRelaySourceOptions {
  readonly database: Database<OrchestratorSchema>;
  readonly codec: EventCodec;
  /** The writer of this process; undefined while it has none. */
  readonly writer: () => bigint | undefined;
  /** Told how many entries of this process's writer wait. */
  readonly onLag: (entries: number) => void;
  /** Whether steps and calls of tools are stated, too: a fact or two for almost every entry. Default false. */
  readonly withSteps?: boolean;
}

interface Row extends OutlinedEntry {
  readonly writer: bigint;
  /** Up to which the batch covers the log. */
  readonly upto: bigint;
  readonly last: bigint;
  readonly pos: bigint | null;
  readonly org_id: string;
  readonly body: Buffer;
}

const runKinds: readonly number[] = [
  entryKind["run.accepted"],
  entryKind["run.started"],
  entryKind["run.ended"],
  entryKind["run.parked"],
  entryKind["run.resumed"],
  entryKind["graph.ended"],
];
const stepKinds: readonly number[] = [
  entryKind["step.started"],
  entryKind["step.succeeded"],
  entryKind["step.failed"],
  entryKind["step.waiting"],
  entryKind["step.skipped"],
  entryKind["step.cancelled"],
];
/** Those behind which nothing of a run follows. */
const lastKinds: ReadonlySet<number> = new Set([entryKind["run.ended"], entryKind["graph.ended"]]);

/** Entries that are looked at for each fact that is wanted, where steps are not stated: most state none. */
const entriesPerFact = 8;

/** Reads the journal for the relay of this process. */
export function createJournalRelaySource(options: JournalRelaySourceOptions): RelaySource {
  const { codec, withSteps = false } = options;
  const { engine } = options.database;
  const outlines = new RunOutlines(engine, withSteps);
  const factKinds = withSteps ? [...runKinds, ...stepKinds] : runKinds;
  const entriesOf = (facts: number) => (withSteps ? facts : facts * entriesPerFact);
  /** Whose log the last batch was read from. */
  let reading: bigint | undefined;

  async function toEvents(row: Row, outline: RunOutline): Promise<readonly BusEvent[]> {
    const { origin } = outline;
    // The acceptance of a run of a graph is large, and states nothing.
    if (row.kind === entryKind["graph.accepted"] && origin.sessionId === "") return [];
    const orgId = fromUuid("org", row.org_id);
    const entry = decodeEntry(row.body);
    const journaled: JournaledEntry = { orgId, runId: fromUuid("run", row.run_id), seq: row.seq, entry, origin };
    const from = { orgId, traceparent: origin.traceparent };
    const events: BusEvent[] = [];
    if (withSteps) {
      await outlines.note(outline, row, entry.body);
      const step = toStepChanged(journaled, outline);
      if (step !== undefined) events.push(await codec.encode(agentSteps, step, from));
      const tool = toToolCalled(journaled, outline);
      if (tool !== undefined) events.push(await codec.encode(agentTools, tool, from));
    }
    const turn = toTurnChanged(journaled);
    if (turn !== undefined) events.push(await codec.encode(conversationTurns, turn, from));
    const run = toRunChanged(journaled);
    if (run !== undefined) events.push(await codec.encode(agentRuns, run, from));
    if (lastKinds.has(row.kind)) outlines.forget(row.run_id);
    return events;
  }

  return {
    async read(limit) {
      const own = options.writer();
      if (own === undefined) return undefined;
      // One statement, one snapshot: whoever sees an entry of the new owner sees that the old one is fenced (2).
      const { rows } = await sql<Row>`
        with behind as (
          select writer from writer where fenced and pos > relayed order by writer limit 1
        ), chosen as (
          select w.writer, w.relayed, w.pos as last, least(w.pos, w.relayed + ${entriesOf(limit)}) as upto
          from writer w where w.pos > w.relayed and w.writer = case
            when not exists (select 1 from behind) then ${own}::bigint
            when ${own}::bigint = (select min(writer) from writer where not fenced) then (select writer from behind)
          end
        )
        select c.writer, c.upto, c.last, e.pos, e.run_id, e.org_id, e.seq, e.kind, e.body
        from chosen c
        left join entry e on e.writer = c.writer and e.pos > c.relayed and e.pos <= c.upto
          and e.kind = any(${factKinds}::smallint[])
        order by e.pos`.execute(engine);
      const [first] = rows;
      if (first === undefined) return undefined;
      reading = first.writer;
      // Without an entry that states something there is one row, which says how far it was looked.
      const entries = rows.filter(({ pos }) => pos !== null);
      const runs = await outlines.of(entries);
      const events: BusEvent[] = [];
      for (const entry of entries) {
        const outline = runs.get(entry.run_id);
        // Deleted since, with its session.
        if (outline === undefined) continue;
        events.push(...(await toEvents(entry, outline)));
      }
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
