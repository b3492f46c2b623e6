/**
 * What a session's owner writes. Invariants:
 *
 * 1. A turn's state is the fold of all that was submitted for it; what the fold
 *    refuses is never submitted. Whoever decides does so on this state, in the
 *    same moment in which it submits: so of a cancellation and an end that race,
 *    the first one holds.
 * 2. When a change is refused by the store, the states here are ahead of what is
 *    stored: the session is given up and read anew.
 */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { type SessionEvent, TurnEndedSchema, TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { toUuid } from "../../runtime/ids/id.ts";
import type { EntryBody, StepError } from "../domain/entry.ts";
import { fold, type Run } from "../domain/run.ts";
import { addUsage, runState, type UsageDelta } from "../store/append-store.ts";
import type { Change, Committer, RunStanding, UnnumberedEvent } from "../store/committer.ts";
import { durationOf, encodeTurnView, toTurnError } from "./turn-view.ts";

/** Why a turn is stopped from outside. */
export type StopCause = "cancel" | "limit" | "abandon";

/** A turn that has not ended, at its session's owner. */
export class Turn {
  readonly ordinal: number;
  readonly afterSeq: number;
  readonly principal: Principal;
  readonly #stopping = new AbortController();
  #run: Run;
  #abandoned = false;
  #limitReached = false;

  constructor(run: Run, ordinal: number, afterSeq: number, principal: Principal) {
    this.#run = run;
    this.ordinal = ordinal;
    this.afterSeq = afterSeq;
    this.principal = principal;
  }

  /** Its state, with all that was submitted. */
  get run(): Run {
    return this.#run;
  }

  /** Aborts when the turn is stopped from outside, whatever the cause. */
  get signal(): AbortSignal {
    return this.#stopping.signal;
  }

  /** Whether nothing may be written any more: another process goes on with it. */
  get abandoned(): boolean {
    return this.#abandoned;
  }

  /** Whether its time is up. */
  get limitReached(): boolean {
    return this.#limitReached;
  }

  /** Cuts off what runs for it. */
  stop(cause: StopCause): void {
    if (cause === "abandon") this.#abandoned = true;
    if (cause === "limit") this.#limitReached = true;
    this.#stopping.abort(cause);
  }

  /** Moves the state; for the journal only. */
  advance(run: Run): void {
    this.#run = run;
  }
}

/** What happens to a turn in one change. */
export interface TurnStep {
  readonly turn: Turn;
  readonly entries?: readonly EntryBody[];
  readonly events?: readonly SessionEvent["body"][];
}

/** What a turn writes through: its session's journal, or that of the graph's run which it is a step of. */
export interface TurnJournal {
  /** Empty for a step of a graph. */
  readonly sessionId: string;
  readonly epoch: bigint;
  /** Milliseconds since the epoch. */
  now(): number;
  /** Stores what happens to turns, all or nothing. Resolves when it is committed. */
  store(steps: readonly TurnStep[]): Promise<void>;
}

/** Writes a session's turns and events through the committer. */
export class SessionJournal implements TurnJournal {
  readonly sessionId: string;
  readonly sessionUuid: string;
  readonly orgId: string;
  readonly epoch: bigint;
  readonly #committer: Committer;
  readonly #now: () => number;
  #lastSeq: number;

  constructor(options: {
    readonly sessionId: string;
    readonly orgId: string;
    readonly epoch: bigint;
    readonly lastSeq: number;
    readonly committer: Committer;
    readonly now: () => number;
  }) {
    this.sessionId = options.sessionId;
    this.sessionUuid = toUuid("ses", options.sessionId);
    this.orgId = options.orgId;
    this.epoch = options.epoch;
    this.#lastSeq = options.lastSeq;
    this.#committer = options.committer;
    this.#now = options.now;
  }

  /** The number of the last event that is stored. */
  get lastSeq(): number {
    return this.#lastSeq;
  }

  /** Milliseconds since the epoch. */
  now(): number {
    return this.#now();
  }

  /** Throws BACKPRESSURE if no new work should be taken on. */
  assertRoom(): void {
    this.#committer.assertRoom();
  }

  /** Stores what happens to turns, all or nothing. Resolves when it is committed. */
  async store(
    steps: readonly TurnStep[],
    more: Pick<Change, "newRun" | "reply" | "answered" | "deleted" | "standsAlone"> = {},
  ): Promise<void> {
    const atMs = this.#now();
    const entries: NonNullable<Change["entries"]>[number][] = [];
    const standings: RunStanding[] = [];
    const events: UnnumberedEvent[] = [];
    const moves = new Map<Turn, Run>();
    let usage: UsageDelta | undefined;
    for (const step of steps) {
      const runId = toUuid("run", step.turn.run.runId);
      let run = moves.get(step.turn) ?? step.turn.run;
      for (const body of step.entries ?? []) {
        const entry = { atMs, body };
        entries.push({ runId, entry });
        // A run that is created brings its first entry folded already.
        if (body.type !== "run.accepted") run = fold(run.runId, run, entry);
      }
      const ended = run.ended !== undefined && (moves.get(step.turn) ?? step.turn.run).ended === undefined;
      moves.set(step.turn, run);
      if (ended) {
        const state = runState[run.ended?.end.state ?? "running"];
        standings.push({ runId, state, wakeAtMs: undefined, view: encodeTurnView(run, step.turn.afterSeq) });
        usage = addUsage(usage, { ...run.usage, durationMs: durationOf(run) });
      }
      for (const body of step.events ?? []) events.push(this.#event(step.turn, atMs, body));
    }
    // 1: nothing is submitted if a fold above has thrown.
    for (const [turn, run] of moves) turn.advance(run);
    const stored = await this.#committer.submit({
      rootId: this.sessionUuid,
      ...more,
      ...(entries.length > 0 ? { entries } : {}),
      ...(standings.length > 0 ? { standings } : {}),
      ...(events.length > 0 ? { events } : {}),
      ...(usage === undefined ? {} : { usage }),
    });
    const last = stored.at(-1);
    if (last !== undefined) this.#lastSeq = Math.max(this.#lastSeq, Number(last.seq));
  }

  /** Tells readers that a turn is given up, of which nothing more can be stored. */
  async tellOfLoss(runId: string, error: StepError): Promise<void> {
    const value = create(TurnEndedSchema, { state: TurnState.FAILED, error: toTurnError(error) });
    await this.#committer.submit({
      rootId: this.sessionUuid,
      standsAlone: true,
      events: [
        {
          sessionId: this.sessionId,
          turnId: runId,
          at: timestampFromMs(this.#now()),
          traceId: "",
          requestId: "",
          orgId: this.orgId,
          body: { case: "turnEnded", value },
        },
      ],
    });
  }

  #event(turn: Turn, atMs: number, body: SessionEvent["body"]): UnnumberedEvent {
    const { requestId, traceparent } = turn.run.accepted;
    return {
      sessionId: this.sessionId,
      turnId: turn.run.runId,
      at: timestampFromMs(atMs),
      traceId: traceparent.split("-")[1] ?? "",
      requestId,
      orgId: this.orgId,
      body,
    };
  }
}
