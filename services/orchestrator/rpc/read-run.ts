import { fromBinary } from "@bufbuild/protobuf";
import type { Value } from "@bufbuild/protobuf/wkt";
import { type Entry, EntrySchema, type Payload } from "@cadre/gen/cadre/orchestrator/journal/v1/entry_pb";
import type { Run } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { Logger } from "../../runtime/log/log.ts";
import { chainHash, emptyChain } from "../domain/chain.ts";
import { damaged } from "../domain/run.ts";
import { fromPayload } from "../store/graph-entry-codec.ts";
import type { Payloads } from "../store/payloads.ts";
import { toValue } from "../store/proto-values.ts";
import type { ReceiptStore } from "../store/receipt-store.ts";
import type { RunReadStore, StoredEntry } from "../store/run-read-store.ts";
import { RunView, toDamagedRun, toPrunedRun } from "./run-view.ts";

/** How many entries are read at once. */
const pageSize = 1_000;

export interface ReadRunDeps {
  readonly runs: RunReadStore;
  readonly receipts: Pick<ReceiptStore, "find">;
  readonly payloads: Pick<Payloads, "load">;
  readonly log: Logger;
}

/**
 * Reads a run with its steps, and checks its journal on the way: one that is
 * damaged is shown as far as its row goes.
 *
 * @param orgId the org's UUID
 * @throws AppError RUN_NOT_FOUND
 */
export async function readRun(deps: ReadRunDeps, orgId: string, runId: string): Promise<Run> {
  const first = await deps.runs.readEntries(orgId, runId, 0, pageSize);
  if (first === undefined) {
    const receipt = await deps.receipts.find(orgId, runId);
    if (receipt === undefined) throw runNotFound();
    return toPrunedRun(receipt);
  }
  const { run } = first;
  const view = new RunView(run);
  let chain: Uint8Array = emptyChain;
  let last = 0;
  const take = ({ seq, kind, body }: StoredEntry): void => {
    if (seq !== last + 1) throw damaged("misses an entry");
    last = seq;
    chain = chainHash(chain, run.runId, seq, kind, body);
    view.apply(seq, decodeJournalEntry(body), body.length);
  };
  try {
    for (let page: readonly StoredEntry[] | undefined = first.entries; page !== undefined && page.length > 0; ) {
      // It may have moved on since the first page; this is how it was then.
      for (const entry of page) if (entry.seq <= run.head) take(entry);
      if (last >= run.head || page.length < pageSize) break;
      page = (await deps.runs.readEntries(orgId, runId, last, pageSize))?.entries;
    }
    if (last !== run.head || !Buffer.from(chain).equals(run.chain)) throw damaged("does not end where it should");
    return await view.toRun((payload) => loadValue(deps.payloads, orgId, payload));
  } catch (error) {
    if (!(error instanceof AppError) || error.reason !== "DATA_LOSS") throw error;
    deps.log.error({ err: error, runUuid: runId }, "the journal of a run is damaged");
    return toDamagedRun(run, error.message);
  }
}

/** Decodes an entry's message. Throws DATA_LOSS if the bytes are none. */
export function decodeJournalEntry(body: Uint8Array): Entry {
  try {
    return fromBinary(EntrySchema, body);
  } catch (cause) {
    throw Object.assign(damaged("has an entry that cannot be read"), { cause });
  }
}

/** Reads a value of the journal, wherever it is kept. Throws DATA_LOSS if it is not what was kept. */
export async function loadValue(payloads: Pick<Payloads, "load">, orgId: string, payload: Payload): Promise<Value> {
  if (payload.place.case === "value") return payload.place.value;
  return toValue(await payloads.load(orgId, fromPayload(payload)));
}

/** The failure of a run that the org does not have. */
export function runNotFound(): AppError {
  return new AppError("RUN_NOT_FOUND", "no such run");
}
