import type { RunEvent } from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { type FollowRunDeps, followRun, type RunPosition } from "../app/follow-run.ts";
import { runState } from "../store/append-store.ts";
import type { Payloads } from "../store/payloads.ts";
import type { RunReadStore, RunRow } from "../store/run-read-store.ts";
import { decodeJournalEntry, loadValue } from "./read-run.ts";
import { maxEventOutputBytes, runFacts, type ShownOutput, StepPlaces, shownPayload, toRunEvent } from "./run-events.ts";
import { parkedOf } from "./run-view.ts";

export interface WatchRunDeps extends FollowRunDeps {
  readonly runs: RunReadStore;
  readonly payloads: Pick<Payloads, "load">;
}

/** The kinds of entries that say what later ones lean on: what the run is, and where the calls of agents stand. */
const placingKinds = [10, 12];
const parkedKind = 23;
const resumedKind = 24;

/**
 * The events of a run from a number on, up to its end. Undefined stands for a
 * keepalive; the first message comes at once.
 *
 * @throws AppError RUN_NOT_FOUND; DATA_LOSS if its journal is damaged, so that nothing follows; SHUTTING_DOWN
 */
export async function* watchRun(
  deps: WatchRunDeps,
  position: RunPosition,
  signal: AbortSignal,
): AsyncGenerator<RunEvent | undefined> {
  const { orgId, runId, afterSeq } = position;
  const places = new StepPlaces();
  let facts: ReturnType<typeof runFacts> | undefined;
  let told = false;
  for await (const page of followRun(deps, position, signal)) {
    if (page === undefined) {
      yield undefined;
      continue;
    }
    const { run, entries } = page;
    if (facts === undefined) {
      const earlier = await deps.runs.readKinds(orgId, runId, placingKinds, Math.max(afterSeq, 1));
      const decoded = earlier.map(({ body }) => decodeJournalEntry(body));
      facts = runFacts(run, decoded[0]);
      if (afterSeq > 0) for (const entry of decoded) places.learn(entry);
    }
    for (const { seq, body } of entries) {
      const entry = decodeJournalEntry(body);
      const event = toRunEvent(facts, places, seq, entry, await showOutput(deps, orgId, entry));
      if (event === undefined) continue;
      told = true;
      yield event;
    }
    await assertGoesOn(deps, orgId, run, entries.at(-1)?.seq ?? afterSeq);
    // The caller learns at once that the stream stands, also when nothing happens.
    if (!told) yield undefined;
    told = true;
  }
}

async function showOutput(
  deps: WatchRunDeps,
  orgId: string,
  entry: ReturnType<typeof decodeJournalEntry>,
): Promise<ShownOutput | undefined> {
  const payload = shownPayload(entry);
  if (payload === undefined) return undefined;
  const { place } = payload;
  if (place.case === "blob" && place.value.size > BigInt(maxEventOutputBytes)) {
    return { case: "largeOutputBytes", value: place.value.size };
  }
  return { case: "output", value: await loadValue(deps.payloads, orgId, payload) };
}

/** A run that was parked without an entry has a journal that nothing can be added to. */
async function assertGoesOn(deps: WatchRunDeps, orgId: string, run: RunRow, seq: number): Promise<void> {
  if (run.state !== runState.parked || seq < run.head) return;
  const parkings = await deps.runs.readKinds(orgId, run.runId, [parkedKind, resumedKind], run.head);
  if (parkings.at(-1)?.kind === parkedKind) return;
  throw new AppError("DATA_LOSS", parkedOf(run)?.message ?? "the run's journal is damaged");
}
