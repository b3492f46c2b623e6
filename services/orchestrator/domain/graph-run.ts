/**
 * The state of a run of a graph: a fold over its journal. Unlike a turn's it is
 * changed in place, since a run may have 50,000 entries. Invariants:
 *
 * 1. Nothing follows the end.
 * 2. A step begins when all that it waits for has ended, and ends once.
 * 3. A result belongs to the attempt behind the failures that are on record;
 *    attempts that a crash cut short are not counted.
 * 4. An element belongs to a fan-out that goes on, or failed while it was under
 *    way; a compensation to a step that was begun, in a run that fails or is
 *    cancelled.
 * 5. A message serves one step.
 *
 * A history that breaks them is none that this code makes: NON_DETERMINISTIC.
 * `apply` refuses an entry before it changes anything.
 */
import { AppError } from "../../runtime/errors/app-error.ts";
import type {
  CancelCause,
  Entry,
  EntryBody,
  GraphAccepted,
  GraphEnd,
  GraphStarted,
  Parked,
  Payload,
  Receipt,
  StepError,
  StepPlace,
  Wait,
} from "./entry.ts";
import type { Plan, PlanNode } from "./graph/plan.ts";
import { fold, type Run } from "./run.ts";
import { stepId } from "./step-id.ts";

export type StepPhase = "running" | "waiting" | "succeeded" | "failed" | "skipped" | "cancelled";

/** A step that was begun, an element of a fan-out, or a compensation. */
export interface StepState {
  readonly place: StepPlace;
  readonly stepId: string;
  phase: StepPhase;
  /** Attempts that failed, on record. */
  failures: number;
  /** When the next attempt begins; undefined unless one waits. */
  retryAtMs: number | undefined;
  wait: Wait | undefined;
  output: Payload | undefined;
  error: StepError | undefined;
  receipt: Receipt | undefined;
  startedAtMs: number;
  endedAtMs: number | undefined;
  /** The number of the entry behind which it had ended. */
  endedSeq: number;
  /** Whether its result is that of the run that this one was forked from. */
  carried: boolean;
  /** An agent's rounds. */
  loop: Run | undefined;
  /** The elements of a fan-out; holes were not begun. */
  readonly items: (StepState | undefined)[];
  compensation: StepState | undefined;
}

/** A message that no step took yet. */
export interface Signal {
  readonly seq: number;
  readonly signal: string;
  readonly payload: Payload;
}

/** Makes the run of an agent's step, whose rounds are folded like a turn's. */
export type BeginLoop = (run: GraphRun, place: StepPlace, atMs: number) => Run;

/** A run of a graph. */
export class GraphRun {
  readonly runId: string;
  readonly plan: Plan;
  readonly accepted: GraphAccepted;
  readonly acceptedAtMs: number;
  /** How many entries it has. */
  head = 1;
  started: (GraphStarted & { readonly atMs: number }) | undefined;
  /** By the position of the node; holes were not begun. */
  readonly steps: (StepState | undefined)[] = [];
  /** In the order in which they came. */
  signals: readonly Signal[] = [];
  cancel: { readonly cause: CancelCause; readonly reason: string; readonly compensate: boolean } | undefined;
  failing: { readonly step: string; readonly error: StepError } | undefined;
  parked: Parked | undefined;
  ended: { readonly atMs: number; readonly end: GraphEnd } | undefined;
  /** For whom it runs, in the contract's encoding; changed by a resumption. */
  principal: Uint8Array;
  /** How many attempts it began, rounds of agents included. */
  begun = 0;
  readonly usage = { inputTokens: 0, outputTokens: 0, modelCalls: 0, toolCalls: 0 };
  /** When steps are due, by their ids. */
  readonly #dues = new Map<string, number>();
  /** Steps of agents' rounds, by their ids. */
  readonly #rounds = new Map<string, StepState>();
  readonly #stepIds = new Map<string, string>();
  readonly #beginLoop: BeginLoop;

  /** Throws NON_DETERMINISTIC unless the entry accepts a run of a graph. */
  constructor(runId: string, plan: Plan, first: Entry, beginLoop: BeginLoop) {
    if (first.body.type !== "graph.accepted") throw diverged("it does not begin with its acceptance");
    this.runId = runId;
    this.plan = plan;
    this.accepted = first.body;
    this.acceptedAtMs = first.atMs;
    this.principal = first.body.principal;
    this.#beginLoop = beginLoop;
  }

  /** Whether nothing new is begun any more, but what a stop needs. */
  get stopping(): boolean {
    return this.cancel !== undefined || this.failing !== undefined;
  }

  /** After which it is stopped, in milliseconds since the epoch. */
  get deadlineMs(): number {
    return (this.started?.atMs ?? this.acceptedAtMs) + this.accepted.maxDurationMs;
  }

  /** When something of it is due next, in milliseconds since the epoch. */
  get wakeAtMs(): number {
    let earliest = this.deadlineMs;
    for (const due of this.#dues.values()) if (due < earliest) earliest = due;
    return earliest;
  }

  /** The step at a place; undefined if it was not begun. */
  at({ name, index, compensation }: StepPlace): StepState | undefined {
    const step = this.steps[this.node(name).position];
    if (compensation) return step?.compensation;
    return index === undefined ? step : step?.items[index];
  }

  /** Throws NON_DETERMINISTIC if the graph has no such step. */
  node(name: string): PlanNode {
    const node = this.plan.byName.get(name);
    if (node === undefined) throw diverged(`the graph has no step ${name}`);
    return node;
  }

  /** Whether a step ended for the steps that wait for it. */
  isSettled(position: number): boolean {
    const phase = this.steps[position]?.phase;
    return phase === "succeeded" || phase === "skipped";
  }

  /** Whether all steps ended for those that wait for them. */
  isSettledWhole(): boolean {
    return this.plan.nodes.every(({ position }) => this.isSettled(position));
  }

  /** Every step that was begun, with elements and compensations. */
  allSteps(): readonly StepState[] {
    const all: StepState[] = [];
    for (const step of this.steps) {
      if (step === undefined) continue;
      all.push(step);
      for (const item of step.items) if (item !== undefined) all.push(item);
      if (step.compensation !== undefined) all.push(step.compensation);
    }
    return all;
  }

  /** Whether all that a step waits for ended. */
  isReady(node: PlanNode): boolean {
    return node.waitsFor.every((position) => this.isSettled(position));
  }

  /** The id of a step, which is its idempotency key. */
  stepIdAt(place: StepPlace): string {
    const key = placeKey(place);
    let id = this.#stepIds.get(key);
    if (id === undefined) {
      id = stepId(this.runId, `step:${key}`);
      this.#stepIds.set(key, id);
    }
    return id;
  }

  /** Folds one more entry in. */
  apply({ atMs, body }: Entry): void {
    if (this.ended !== undefined) throw diverged("it goes on after its end"); // 1
    switch (body.type) {
      case "graph.accepted":
        throw diverged("it is accepted twice");
      case "graph.started":
        if (this.started !== undefined) throw diverged("it starts twice");
        this.started = { ...body, atMs };
        break;
      case "graph.step.started":
        this.#begin(body.place, body.stepId, atMs);
        this.begun += 1;
        break;
      case "graph.step.succeeded":
        this.#succeed(body, atMs);
        break;
      case "graph.step.failed":
        this.#fail(body, atMs);
        break;
      case "step.waiting": {
        const step = this.#begin(body.place, body.stepId, atMs);
        step.phase = "waiting";
        step.wait = body.wait;
        const due = dueOf(body.wait);
        if (due !== undefined) this.#dues.set(step.stepId, due);
        break;
      }
      case "step.skipped": {
        if (this.at(body.place) !== undefined) throw diverged(`${body.place.name} is skipped after its begin`);
        const step = this.#begin(body.place, this.stepIdAt(body.place), atMs);
        this.#end(step, "skipped", atMs);
        break;
      }
      case "step.cancelled": {
        if (!this.stopping) throw diverged(`${body.place.name} is cancelled in a run that is not`);
        const step = this.#begin(body.place, body.stepId, atMs);
        step.receipt = body.receipt;
        this.#end(step, "cancelled", atMs);
        break;
      }
      case "signal.received":
        this.signals = [...this.signals, { seq: this.head + 1, signal: body.signal, payload: body.payload }];
        break;
      case "approval.decided":
        if (this.at(body.place)?.wait?.for !== "approval") throw diverged(`${body.place.name} waits for nobody`);
        break;
      case "cancel.requested":
        this.cancel ??= { cause: body.cause, reason: body.reason, compensate: body.compensate };
        break;
      case "run.failing":
        if (this.failing !== undefined) throw diverged("it fails twice");
        this.failing = { step: body.step, error: body.error };
        break;
      case "run.parked":
        if (this.parked !== undefined) throw diverged("it is parked twice");
        this.parked = body.parked;
        break;
      case "run.resumed":
        if (this.parked === undefined) throw diverged("it is resumed and was not parked");
        this.parked = undefined;
        this.principal = body.principal;
        break;
      case "graph.ended":
        this.#mayEnd(body.end);
        this.ended = { atMs, end: body.end };
        this.#dues.clear();
        break;
      default:
        this.#foldRound({ atMs, body });
    }
    this.head += 1;
  }

  /** The step at a place, begun if it was not. */
  #begin(place: StepPlace, id: string, atMs: number): StepState {
    const known = this.at(place);
    if (known !== undefined) {
      if (known.stepId !== id) throw diverged(`${placeKey(place)} is another step than before`);
      if (known.endedAtMs !== undefined) throw diverged(`${placeKey(place)} goes on after its end`); // 2
      known.phase = "running";
      known.retryAtMs = undefined;
      known.wait = undefined;
      this.#dues.delete(id);
      return known;
    }
    if (id !== this.stepIdAt(place)) throw diverged(`${placeKey(place)} has the id of another step`);
    const step: StepState = {
      place,
      stepId: id,
      phase: "running",
      failures: 0,
      retryAtMs: undefined,
      wait: undefined,
      output: undefined,
      error: undefined,
      receipt: undefined,
      startedAtMs: atMs,
      endedAtMs: undefined,
      endedSeq: 0,
      carried: false,
      loop: undefined,
      items: [],
      compensation: undefined,
    };
    const node = this.node(place.name);
    const owner = this.steps[node.position];
    if (place.compensation) {
      if (owner === undefined || node.compensation === undefined || !this.stopping) {
        throw diverged(`${place.name} is compensated for nothing`); // 4
      }
      owner.compensation = step;
    } else if (place.index !== undefined) {
      if (node.task.kind !== "fan-out") throw diverged(`${place.name} has no elements`);
      const parent =
        owner ?? this.#begin({ ...place, index: undefined }, this.stepIdAt({ ...place, index: undefined }), atMs);
      // Elements that are under way when another one fails still say how they end.
      const endsLate = parent.phase === "failed" && this.stopping;
      if (parent.endedAtMs !== undefined && !endsLate) throw diverged(`${place.name} has an element after its end`); // 4
      parent.items[place.index] = step;
    } else {
      if (!this.isReady(node)) throw diverged(`${place.name} begins before what it waits for ended`); // 2
      this.steps[node.position] = step;
    }
    return step;
  }

  #succeed(body: Extract<EntryBody, { type: "graph.step.succeeded" }>, atMs: number): void {
    const { place, signalSeq } = body;
    const taken = signalSeq === 0 ? undefined : this.signals.find(({ seq }) => seq === signalSeq);
    if (signalSeq !== 0 && taken === undefined) throw diverged(`${place.name} takes a message that is not there`); // 5
    this.#mayDecide(place, body.attempt);
    const known = this.at(place);
    if (known === undefined) this.begun += 1;
    const step = this.#begin(place, body.stepId, atMs);
    if (taken !== undefined) this.signals = this.signals.filter((signal) => signal !== taken);
    step.output = body.output;
    step.carried = body.carried;
    step.error = undefined;
    this.usage.inputTokens += body.inputTokens;
    this.usage.outputTokens += body.outputTokens;
    this.#end(step, "succeeded", atMs);
  }

  #fail(body: Extract<EntryBody, { type: "graph.step.failed" }>, atMs: number): void {
    this.#mayDecide(body.place, body.attempt);
    const known = this.at(body.place);
    if (known === undefined) this.begun += 1;
    const step = this.#begin(body.place, body.stepId, atMs);
    step.failures += 1;
    step.error = body.error;
    step.receipt = body.receipt;
    // An agent begins anew.
    step.loop = undefined;
    if (body.retryAtMs === undefined) {
      this.#end(step, "failed", atMs);
    } else {
      step.phase = "waiting";
      step.retryAtMs = body.retryAtMs;
      this.#dues.set(step.stepId, body.retryAtMs);
    }
  }

  #mayDecide(place: StepPlace, attempt: number): void {
    const failures = this.at(place)?.failures ?? 0;
    if (attempt !== 0 && attempt !== failures + 1) {
      throw diverged(`${placeKey(place)} has the result of attempt ${attempt} after ${failures} failed ones`); // 3
    }
  }

  #end(step: StepState, phase: StepPhase, atMs: number): void {
    step.phase = phase;
    step.endedAtMs = atMs;
    step.endedSeq = this.head + 1;
    this.#dues.delete(step.stepId);
  }

  #mayEnd(end: GraphEnd): void {
    if (end.state !== "succeeded") return;
    if (this.stopping) throw diverged("it succeeds although it was stopped");
    for (const node of this.plan.nodes) {
      if (!this.isSettled(node.position)) throw diverged(`it succeeds before ${node.name} ended`);
    }
  }

  /** Folds an entry of an agent's rounds. */
  #foldRound(entry: Entry): void {
    const { body } = entry;
    let step: StepState | undefined;
    switch (body.type) {
      case "step.started": {
        const { within } = body.plan;
        if (within === undefined) throw diverged("a round belongs to no step");
        step = this.#begin(within, this.stepIdAt(within), entry.atMs);
        step.loop ??= this.#beginLoop(this, within, entry.atMs);
        break;
      }
      case "step.succeeded":
      case "step.failed":
      case "answer.rejected":
        step = this.#rounds.get(body.stepId);
        break;
      default:
        throw diverged(`an entry ${body.type} belongs to a turn`);
    }
    if (step?.loop === undefined) throw diverged("a round has a result and did not begin");
    step.loop = fold(this.runId, step.loop, entry);
    if (body.type === "step.started") {
      this.#rounds.set(body.stepId, step);
      this.begun += 1;
    } else if (body.type === "step.succeeded") {
      if (body.result.kind === "model") {
        this.usage.modelCalls += 1;
        this.usage.inputTokens += body.result.inputTokens;
        this.usage.outputTokens += body.result.outputTokens;
      } else {
        this.usage.toolCalls += 1;
      }
    }
  }
}

/** A place as text: `fetch`, `fetch[3]` or `compensate:fetch`. */
export function placeKey({ name, index, compensation }: StepPlace): string {
  if (compensation) return `compensate:${name}`;
  return index === undefined ? name : `${name}[${index}]`;
}

/** The place of a step of a graph. */
export function placeOf(name: string): StepPlace {
  return { name, index: undefined, compensation: false };
}

/** When a wait ends by itself; undefined if it does not. */
export function dueOf(wait: Wait): number | undefined {
  switch (wait.for) {
    case "timer":
      return wait.dueAtMs;
    case "signal":
    case "approval":
      return wait.expiresAtMs;
    case "child":
      return undefined;
  }
}

/** The failure of a history that this code would not have made. */
export function diverged(how: string): AppError {
  return new AppError("NON_DETERMINISTIC", `the history of the run diverges: ${how}`);
}
