/**
 * What the owner of a root run writes. The state of a run is ahead of what is
 * stored by what was submitted; when the store refuses, the root is given up
 * and read anew.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import { type Run as ProtoRun, RunSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { reasonNumber } from "../../../runtime/errors/failure.ts";
import { toUuid } from "../../../runtime/ids/id.ts";
import type { EntryBody } from "../../domain/entry.ts";
import type { GraphRun } from "../../domain/graph-run.ts";
import { runState } from "../../store/append-store.ts";
import type { Change, Committer, RunStanding } from "../../store/committer.ts";

/** What is stored with the entries of a run. */
export type StoredWith = Pick<Change, "newRun" | "reply" | "answered" | "standsAlone" | "onSent">;

/** Writes the runs under a root through the committer. */
export class RunJournal {
  readonly rootUuid: string;
  readonly epoch: bigint;
  readonly #committer: Committer;
  readonly #now: () => number;
  readonly #onWake: (atMs: number) => void;

  constructor(options: {
    readonly rootUuid: string;
    readonly epoch: bigint;
    readonly committer: Committer;
    /** The database's clock, in milliseconds since the epoch. */
    readonly now: () => number;
    /** Told when something will be due. */
    readonly onWake: (atMs: number) => void;
  }) {
    this.rootUuid = options.rootUuid;
    this.epoch = options.epoch;
    this.#committer = options.committer;
    this.#now = options.now;
    this.#onWake = options.onWake;
  }

  /** Milliseconds since the epoch, on the database's clock. */
  now(): number {
    return this.#now();
  }

  /** Throws BACKPRESSURE if no new work should be taken on. */
  assertRoom(): void {
    this.#committer.assertRoom();
  }

  /**
   * Stores entries that were folded into a run already. Resolves when they are
   * committed.
   *
   * @param atMs the time that they were folded with
   * @param busy whether something of the run is under way
   */
  async store(
    run: GraphRun,
    bodies: readonly EntryBody[],
    atMs: number,
    busy: boolean,
    more: StoredWith = {},
  ): Promise<void> {
    const runId = toUuid("run", run.runId);
    const standing = standingOf(run, runId, busy);
    await this.#committer.submit({
      rootId: this.rootUuid,
      entries: bodies.map((body) => ({ runId, entry: { atMs, body } })),
      standings: [standing],
      ...more,
    });
    // Behind the commit: what is due at once would be looked for before it is there, and then not again.
    if (standing.wakeAtMs !== undefined) this.#onWake(standing.wakeAtMs);
  }

  /** Stores an answer to a command that changed nothing. */
  async answer(reply: NonNullable<Change["reply"]>): Promise<void> {
    await this.#committer.submit({ rootId: this.rootUuid, reply, standsAlone: true });
  }
}

function standingOf(run: GraphRun, runId: string, busy: boolean): RunStanding {
  if (run.ended !== undefined) {
    const { end } = run.ended;
    const state = runState[end.state];
    if (end.state !== "failed") return { runId, state, wakeAtMs: undefined };
    const error = { reason: reasonNumber(end.error.reason), message: end.error.message, step: end.step };
    return { runId, state, wakeAtMs: undefined, view: viewOf({ error }) };
  }
  if (run.parked !== undefined) {
    const { reason, message, diff } = run.parked;
    const parked = { reason: reasonNumber(reason), message, diff: [...diff] };
    return { runId, state: runState.parked, wakeAtMs: undefined, view: viewOf({ parked }) };
  }
  return { runId, state: busy ? runState.running : runState.waiting, wakeAtMs: run.wakeAtMs };
}

/** What readers see of a run that failed or is parked, beside its journal. */
export function viewOf(
  view: Parameters<typeof create<typeof RunSchema>>[1] & Partial<Pick<ProtoRun, "runId">>,
): Uint8Array {
  return toBinary(RunSchema, create(RunSchema, view));
}
