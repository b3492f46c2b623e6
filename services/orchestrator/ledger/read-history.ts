import type { Kysely } from "kysely";
import type { Entry } from "../domain/entry.ts";
import { decodeEntry } from "../store/entry-codec.ts";
import { readJournal } from "../store/journal-reader.ts";
import type { Payloads } from "../store/payloads.ts";
import type { RunRow } from "../store/run-read-store.ts";
import type { OrchestratorSchema } from "../store/schema.ts";

export interface ReadHistoryDeps {
  readonly engine: Kysely<OrchestratorSchema>;
  readonly payloads: Pick<Payloads, "load">;
}

/**
 * Reads the whole history of a run that was found for its org, and checks its
 * chain. Values that are kept elsewhere are read, too.
 *
 * @param upTo the last entry that is wanted; all are checked
 * @throws AppError DATA_LOSS
 */
export async function readHistory(
  { engine, payloads }: ReadHistoryDeps,
  { runId, orgId, head, chain }: RunRow,
  upTo: number = head,
): Promise<readonly Entry[]> {
  const entries: Entry[] = [];
  for await (const page of readJournal(engine, { run_id: runId, head, chain })) {
    for (const { seq, body } of page) {
      if (seq <= upTo) entries.push(await withValues(payloads, orgId, decodeEntry(body)));
    }
  }
  return entries;
}

/** An entry with the values that are kept elsewhere. Throws DATA_LOSS if one is not what was kept. */
export async function withValues(payloads: Pick<Payloads, "load">, orgId: string, entry: Entry): Promise<Entry> {
  const { body } = entry;
  switch (body.type) {
    case "graph.accepted":
      if (body.input.blob === undefined) return entry;
      return { ...entry, body: { ...body, input: { ...body.input, value: await payloads.load(orgId, body.input) } } };
    case "graph.step.succeeded":
      if (body.output?.blob === undefined) return entry;
      return {
        ...entry,
        body: { ...body, output: { ...body.output, value: await payloads.load(orgId, body.output) } },
      };
    case "signal.received":
      if (body.payload.blob === undefined) return entry;
      return {
        ...entry,
        body: { ...body, payload: { ...body.payload, value: await payloads.load(orgId, body.payload) } },
      };
    case "graph.ended": {
      if (body.end.state !== "succeeded" || body.end.output.blob === undefined) return entry;
      const output = { ...body.end.output, value: await payloads.load(orgId, body.end.output) };
      return { ...entry, body: { ...body, end: { ...body.end, output } } };
    }
    default:
      return entry;
  }
}
