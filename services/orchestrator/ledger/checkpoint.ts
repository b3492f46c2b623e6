import type { Entry, EntryBody, StepPlace } from "../domain/entry.ts";

/** A place from which a run can be forked: behind the end of a step. */
export interface RunCheckpoint {
  /** Counts from 1. */
  readonly number: number;
  /** The number of the entry that it stands behind. */
  readonly seq: number;
  readonly step: string;
  /** When the step ended, in milliseconds since the epoch. */
  readonly atMs: number;
}

/** The checkpoints of a history, oldest first: one behind each entry by which a step of the graph ended. */
export function checkpointsOf(entries: Iterable<Entry>): readonly RunCheckpoint[] {
  const found: RunCheckpoint[] = [];
  let seq = 0;
  for (const { atMs, body } of entries) {
    seq += 1;
    const place = endedPlace(body);
    if (place === undefined || place.index !== undefined || place.compensation) continue;
    found.push({ number: found.length + 1, seq, step: place.name, atMs });
  }
  return found;
}

function endedPlace(body: EntryBody): StepPlace | undefined {
  switch (body.type) {
    case "graph.step.succeeded":
    case "step.skipped":
    case "step.cancelled":
      return body.place;
    case "graph.step.failed":
      return body.retryAtMs === undefined ? body.place : undefined;
    default:
      return undefined;
  }
}
