import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { type RunPins, RunPinsSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import type { Kysely } from "kysely";
import { AppError } from "../../runtime/errors/app-error.ts";
import { decodeEntry } from "../store/entry-codec.ts";
import type { ReceiptStore } from "../store/receipt-store.ts";
import type { OrchestratorSchema } from "../store/schema.ts";

export interface PruneDeps {
  readonly engine: Kysely<OrchestratorSchema>;
  readonly receipts: ReceiptStore;
}

/** Until the facts of a run are on the bus, its deletion waits that long, looking that often, in milliseconds. */
const relayWaitMs = 5_000;
const relayLookMs = 50;

/**
 * Removes a run that ended with all below it, and leaves their receipts.
 *
 * @param runId its UUID
 * @returns false while something under its root is open, or waits for the relay
 */
export async function pruneRun({ engine, receipts }: PruneDeps, runId: string): Promise<boolean> {
  const pins = new Map<string, RunPins>();
  for (const each of await receipts.listBelow(runId)) pins.set(each, await pinsOf(engine, each));
  for (;;) {
    const left = await receipts.prune(runId, pins);
    if (left === undefined) return false;
    if (left === 0) return true;
  }
}

/**
 * The same for a caller who waits: not longer than a moment for the relay.
 *
 * @throws AppError BACKPRESSURE if its facts are not on the bus by then
 */
export async function deleteRun(deps: PruneDeps, runId: string, signal: AbortSignal): Promise<void> {
  for (const deadline = performance.now() + relayWaitMs; !(await pruneRun(deps, runId)); ) {
    if (performance.now() > deadline) {
      throw new AppError("BACKPRESSURE", "facts of the run wait for the bus", { retryAfterMs: 5_000 });
    }
    await delay(relayLookMs, undefined, { signal });
  }
}

/** What a run held on to, by its first two entries. Those of a damaged journal are not known. */
async function pinsOf(engine: Kysely<OrchestratorSchema>, runId: string): Promise<RunPins> {
  const rows = await engine
    .selectFrom("entry")
    .select("body")
    .where("run_id", "=", runId)
    .where("seq", "<=", 2)
    .orderBy("seq")
    .execute();
  try {
    const [accepted, started] = rows.map(({ body }) => decodeEntry(body).body);
    if (accepted?.type !== "graph.accepted") return create(RunPinsSchema);
    return create(RunPinsSchema, {
      definitionDigest: accepted.digest,
      agent: accepted.agent === undefined ? "" : `${accepted.agent.name}@${accepted.agent.revision}`,
      tools: started?.type === "graph.started" ? started.tools.map(({ name, digest }) => ({ tool: name, digest })) : [],
      models: started?.type === "graph.started" ? [...started.models.keys()].sort() : [],
    });
  } catch (error) {
    if (error instanceof AppError && error.reason === "DATA_LOSS") return create(RunPinsSchema);
    throw error;
  }
}
