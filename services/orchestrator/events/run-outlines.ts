import { type Kysely, sql } from "kysely";
import { BoundedMap } from "../../runtime/cache/bounded-map.ts";
import type { EntryBody } from "../domain/entry.ts";
import { decodeEntry, entryKind } from "../store/entry-codec.ts";
import type { OrchestratorSchema } from "../store/schema.ts";
import { RunOutline } from "./run-outline.ts";

/** Runs that are remembered; what was forgotten is read again. */
const maxOutlines = 1_000;

/** An entry as it was read. Ids are UUIDs as text. */
export interface OutlinedEntry {
  readonly run_id: string;
  readonly seq: number;
  readonly kind: number;
  readonly body: Uint8Array;
}

/** The outlines of the runs that the relay reads of. */
export class RunOutlines {
  readonly #engine: Kysely<OrchestratorSchema>;
  readonly #withSteps: boolean;
  readonly #outlines = new BoundedMap<string, RunOutline>(maxOutlines);

  constructor(engine: Kysely<OrchestratorSchema>, withSteps: boolean) {
    this.#engine = engine;
    this.#withSteps = withSteps;
  }

  /** The outlines of the entries' runs, by run. Reads those that are not remembered, in one go. */
  async of(entries: readonly OutlinedEntry[]): Promise<ReadonlyMap<string, RunOutline>> {
    const found = new Map<string, RunOutline>();
    const missing = new Set<string>();
    for (const { run_id: runId, kind, body } of entries) {
      if (found.has(runId)) continue;
      const known =
        kind === entryKind["run.accepted"] ? new RunOutline(body, this.#withSteps) : this.#outlines.get(runId);
      if (known === undefined) missing.add(runId);
      else found.set(runId, known);
    }
    if (missing.size > 0) {
      const { rows } = await sql<{ run_id: string; body: Buffer }>`
        select run_id, body from entry where run_id = any(${[...missing]}::uuid[]) and seq = 1`.execute(this.#engine);
      for (const { run_id: runId, body } of rows) found.set(runId, new RunOutline(body, this.#withSteps));
    }
    for (const [runId, outline] of found) this.#outlines.set(runId, outline);
    return found;
  }

  /** Notes what an entry says, and before that what was said before it, if that is not known any more. */
  async note(outline: RunOutline, { run_id: runId, seq }: OutlinedEntry, body: EntryBody): Promise<void> {
    if (outline.lacks(body)) {
      const { rows } = await sql<{ body: Buffer }>`
        select body from entry
        where run_id = ${runId} and seq < ${seq} and kind in (${entryKind["step.started"]}, ${entryKind["step.succeeded"]})
        order by seq`.execute(this.#engine);
      for (const row of rows) outline.note(decodeEntry(row.body).body);
    }
    outline.note(body);
  }

  /** Forgets a run that has ended. */
  forget(runId: string): void {
    this.#outlines.delete(runId);
  }
}
