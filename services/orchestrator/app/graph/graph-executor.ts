/**
 * Goes on with one run of a graph: begins the steps that are ready, stores what
 * comes of them, and derives what follows. Invariants:
 *
 * 1. A step begins after the change that made it ready is committed, unless it
 *    changes nothing by that: a call of a pure tool and a wait begin at once, and
 *    are begun again if the change gets lost. What a change entails without
 *    anything being done (a skip, the end) is stored with it.
 * 2. Every step has one id, whatever process makes an attempt; a tool gives a
 *    key that it knows the outcome that it had.
 * 3. Once a cancellation or failure is submitted, nothing begins but
 *    compensations; once the run is parked, nothing does.
 * 4. What cannot be stored ends the executor: whoever owns the run next reads
 *    what is there.
 */
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { AppError } from "../../../runtime/errors/app-error.ts";
import { newId } from "../../../runtime/ids/id.ts";
import type { CancelCause, EntryBody, GraphEnd, Parked, Receipt, StepPlace, Wait } from "../../domain/entry.ts";
import type { CompiledItemTask, PlanNode } from "../../domain/graph/plan.ts";
import { resolve } from "../../domain/graph/template.ts";
import {
  type Begin,
  consequencesOf,
  endOfFailure,
  endOfSuccess,
  evaluationFailed,
} from "../../domain/graph-consequences.ts";
import {
  compensationsLeft,
  isTaken,
  itemPlace,
  itemScope,
  itemsToBegin,
  listOf,
  resolveText,
  scopeOf,
} from "../../domain/graph-decisions.ts";
import { type GraphRun, placeOf, type StepState } from "../../domain/graph-run.ts";
import type { Json } from "../../domain/json.ts";
import { failed, inline, succeeded, toStepError } from "../../domain/step-entries.ts";
import { isLost } from "../../store/committer.ts";
import type { ToolCaller } from "../ports.ts";
import type { GraphServices } from "./graph-context.ts";
import type { RunJournal, StoredWith } from "./run-journal.ts";
import { type Attempt, type AttemptHost, StepAttempts } from "./step-attempts.ts";
import { receiptsOf } from "./stop-receipts.ts";

export interface GraphExecutorOptions {
  readonly run: GraphRun;
  readonly services: GraphServices;
  readonly journal: RunJournal;
  /** The org's UUID. */
  readonly orgUuid: string;
  readonly principal: Principal;
  readonly defaultModel: string;
  /** Starts a child of a step, stored with the entry that waits for it. */
  readonly startChild: (parent: GraphExecutor, place: StepPlace, stepId: string, input: Json) => Promise<void>;
  /** Asks a child to end; told again by `childEnded`. */
  readonly cancelChild: (runId: string, compensate: boolean) => Promise<void>;
  /** The run has ended, and that is committed. */
  readonly onEnded: (executor: GraphExecutor) => void;
  /** Nothing of the run is under way any more; it may be dropped. */
  readonly onQuiet: (executor: GraphExecutor) => void;
  /** The run cannot go on here. */
  readonly onBroken: (error: unknown) => void;
}

/** Everything that is ready is begun. */
interface Whole {
  readonly what: "whole";
  readonly node?: undefined;
}

const unknownError = { reason: "INTERNAL", message: "internal error" } as const;
/** Why a child is not started at all, however often that is tried. */
const refusesChild: ReadonlySet<string> = new Set(["LIMIT_EXCEEDED", "AGENT_NOT_FOUND"]);
/** How many entries a history has at most, before the run is parked; a stop may go beyond. */
const maxHistory = 50_000;
/** How many changes of a run may wait for their commit while more of it begins. */
const maxAhead = 64;

/** Runs one graph. */
export class GraphExecutor implements AttemptHost {
  readonly run: GraphRun;
  readonly epoch: bigint;
  readonly defaultModel: string;
  readonly services: GraphServices;
  readonly orgUuid: string;
  readonly #options: GraphExecutorOptions;
  readonly #attempts: StepAttempts;
  /** Whoever waits for the end of a child while the run is stopped, by the child. */
  readonly #childWaiters = new Map<string, () => void>();
  #principal: Principal;
  #gone = false;
  #stopping: Promise<void> | undefined;
  /** Changes that are submitted and not committed. */
  #storing = 0;

  constructor(options: GraphExecutorOptions) {
    this.#options = options;
    this.run = options.run;
    this.services = options.services;
    this.epoch = options.journal.epoch;
    this.defaultModel = options.defaultModel;
    this.orgUuid = options.orgUuid;
    this.#principal = options.principal;
    this.#attempts = new StepAttempts(this);
  }

  /** For whom it runs now. */
  get principal(): Principal {
    return this.#principal;
  }

  /** Whether nothing of it is under way here. */
  get quiet(): boolean {
    return this.#attempts.size === 0 && this.#storing === 0 && this.#stopping === undefined;
  }

  /** Goes on from what is stored. */
  resume(): void {
    const { run } = this;
    if (this.#gone || run.ended !== undefined || run.parked !== undefined) return;
    if (run.stopping) {
      this.#beginStop();
      return;
    }
    const bodies: EntryBody[] = [];
    for (const node of run.plan.nodes) {
      const step = run.steps[node.position];
      if (step?.endedAtMs !== undefined) {
        if (step.phase === "failed" && run.failing === undefined) {
          bodies.push(...endOfFailure(run, node.name, step.error ?? unknownError, this.#busy));
        }
        continue;
      }
      if (run.isReady(node)) this.#goOn(node, step);
    }
    // A fork may have carried everything over.
    if (run.isSettledWhole()) bodies.push(...endOfSuccess(run, this.#busy));
    if (bodies.length > 0) this.#follow(this.record(bodies));
    this.wake();
  }

  /** Does what is due. */
  wake(): void {
    const { run } = this;
    if (this.#gone || run.ended !== undefined || run.parked !== undefined) return;
    const nowMs = this.services.now();
    if (!run.stopping && nowMs >= run.deadlineMs) {
      this.#follow(this.cancel("budget", "", "the run took longer than it may", true));
      return;
    }
    for (const step of run.allSteps()) {
      if (step.endedAtMs !== undefined) continue;
      if (step.retryAtMs !== undefined && step.retryAtMs <= nowMs) this.#again(step);
      else if (step.wait !== undefined) this.#expire(step, step.wait, nowMs);
    }
  }

  /** Asks for the end. Resolves when that is stored; the end comes later. */
  async cancel(
    cause: CancelCause,
    requestId: string,
    reason: string,
    compensate: boolean,
    more: StoredWith = {},
  ): Promise<void> {
    const bodies: EntryBody[] =
      this.run.cancel === undefined ? [{ type: "cancel.requested", cause, requestId, reason, compensate }] : [];
    if (this.run.parked !== undefined) {
      // A cancellation needs nobody's leave but the caller's.
      bodies.unshift({ type: "run.resumed", principal: this.run.principal, requestId });
    }
    if (bodies.length > 0) await this.record(bodies, more);
    this.#beginStop();
  }

  /** Gives a message to the run: to a step that waits for it, or to the next one that will. */
  async signal(body: Extract<EntryBody, { type: "signal.received" }>, more: StoredWith): Promise<number> {
    const { run } = this;
    const seq = run.head + 1;
    const bodies: EntryBody[] = [body];
    const waiting = run.parked === undefined && !run.stopping ? this.#waitingFor(body.signal) : undefined;
    if (waiting !== undefined) {
      bodies.push({
        type: "graph.step.succeeded",
        stepId: waiting.stepId,
        place: waiting.place,
        attempt: 0,
        output: body.payload,
        inputTokens: 0,
        outputTokens: 0,
        signalSeq: seq,
        carried: false,
      });
    }
    await this.record(bodies, more);
    return seq;
  }

  /** Decides a step that waits for a person. */
  async decide(body: Extract<EntryBody, { type: "approval.decided" }>, more: StoredWith): Promise<void> {
    const { run } = this;
    const step = run.at(body.place);
    const node = run.node(body.place.name);
    if (step?.wait?.for !== "approval" || node.task.kind !== "approval") {
      throw new AppError("STEP_NOT_WAITING", `the step ${body.place.name} waits for no approval`);
    }
    const { place, stepId } = step;
    const { approved, by, reason } = body;
    const bodies: EntryBody[] = [body];
    if (approved || node.task.continueOnRefusal) {
      bodies.push(succeeded(place, stepId, 0, inline({ approved, by, reason })));
    } else {
      const message = reason === "" ? "a person refused" : reason;
      bodies.push(failed(place, stepId, 0, { reason: "APPROVAL_REFUSED", message }));
    }
    await this.record(bodies, more);
  }

  /** Goes on with a parked run, for somebody. */
  async unpark(principal: Principal, encoded: Uint8Array, requestId: string, more: StoredWith): Promise<void> {
    this.#principal = principal;
    await this.record([{ type: "run.resumed", principal: encoded, requestId }], more);
    this.resume();
  }

  /** A child of a step ended. */
  childEnded(place: StepPlace, childRunId: string, end: GraphEnd): void {
    const step = this.run.at(place);
    if (this.#gone || step === undefined || step.endedAtMs !== undefined) return;
    if (step.wait?.for !== "child" || step.wait.runId !== childRunId) return;
    if (this.run.stopping) {
      // The stop waits for it.
      this.#childWaiters.get(childRunId)?.();
      return;
    }
    const { stepId } = step;
    this.#follow(
      this.record([
        end.state === "succeeded"
          ? succeeded(place, stepId, 1, end.output)
          : failed(place, stepId, 1, {
              reason: "CHILD_FAILED",
              message: `the child run ${childRunId} ${end.state === "failed" ? `failed: ${end.error.message}` : "was cancelled"}`,
            }),
      ]),
    );
  }

  /** Drops everything without writing: another process goes on, or a later start. */
  async close(): Promise<void> {
    this.#gone = true;
    for (const wake of this.#childWaiters.values()) wake();
    await this.#attempts.abandon();
    await this.#stopping;
  }

  /**
   * Folds entries in, with all that follows from them, and stores them
   * together. What they made ready begins when they are committed, or at once.
   */
  record(bodies: readonly EntryBody[], more: StoredWith = {}): Promise<void> {
    if (this.#gone) return Promise.reject(new AppError("FENCED", "the run moved to another process"));
    const { run } = this;
    const atMs = this.services.now();
    const all: EntryBody[] = [];
    const begins: Begin[] = [];
    const queue = [...bodies];
    for (let body = queue.shift(); body !== undefined; body = queue.shift()) {
      run.apply({ atMs, body });
      all.push(body);
      const follows = consequencesOf(run, body, this.#busy);
      queue.push(...follows.bodies);
      begins.push(...follows.begins);
    }
    const [ahead, later] = this.#divide(begins);
    const stored = this.#store(all, atMs, later, more, ahead.length > 0);
    this.#beginAll(ahead);
    return stored;
  }

  /** Stores the first entries of a run, that are folded already, and begins it. */
  begin(bodies: readonly EntryBody[], atMs: number, more: StoredWith): Promise<void> {
    const { run } = this;
    const ready = run.plan.nodes.filter(
      (node) => run.steps[node.position]?.endedAtMs === undefined && run.isReady(node),
    );
    const begins = ready.map((node): Begin => ({ what: "step", node }));
    const [ahead, later] = this.#divide(begins);
    // A fork may have carried everything over.
    if (begins.length === 0) later.push({ what: "whole" });
    // Runs that are accepted together go on together: that costs about a fifth less than one after the other.
    const onSent = ahead.length === 0 ? {} : { onSent: () => this.#beginSent(ahead) };
    return this.#store(bodies, atMs, later, { ...more, ...onSent }, ahead.length > 0);
  }

  /** 1: what begins at once, and what when the change is committed that made it ready. */
  #divide(begins: readonly Begin[]): [ahead: Begin[], later: (Begin | Whole)[]] {
    const ahead: Begin[] = [];
    const later: Begin[] = [];
    for (const begin of begins) (this.#mayBeginAhead(begin) ? ahead : later).push(begin);
    return [ahead, later];
  }

  async #store(
    all: readonly EntryBody[],
    atMs: number,
    begins: readonly (Begin | Whole)[],
    more: StoredWith,
    begun: boolean,
  ): Promise<void> {
    const { journal, onEnded } = this.#options;
    const busy = begun || this.#busy || begins.length > 0 || this.run.stopping || this.run.head <= 2;
    this.#storing += 1;
    try {
      await journal.store(this.run, all, atMs, busy, more);
    } finally {
      this.#storing -= 1;
    }
    if (this.#gone) return;
    // Of its own entries: what is folded may be further than what is stored.
    if (all.some(({ type }) => type === "graph.ended")) {
      onEnded(this);
      return;
    }
    this.#beginAll(begins); // 1
    this.#maybeQuiet();
  }

  /** Whether attempts are under way. */
  get #busy(): boolean {
    return this.#attempts.size > 0;
  }

  /** Never throws: it is told by who stores for all. */
  #beginSent(begins: readonly Begin[]): void {
    try {
      this.#beginAll(begins);
    } catch (error) {
      this.#broken(error);
    }
  }

  #beginAll(begins: readonly (Begin | Whole)[]): void {
    for (const begin of begins) this.#begin(begin);
  }

  #begin({ what, node }: Begin | Whole): void {
    if (what === "whole") this.resume();
    else if (what === "stop") this.#beginStop();
    else if (what === "items") this.#beginItems(node);
    else this.#goOn(node, this.run.steps[node.position]);
  }

  /** 1: whether it is no harm to begin it in vain, and not too much of the run waits for its commit. */
  #mayBeginAhead({ node }: Begin): boolean {
    if (node === undefined || this.#storing >= maxAhead) return false;
    const task = node.task.kind === "fan-out" ? node.task.task : node.task;
    switch (task.kind) {
      case "tool":
        return this.#attempts.isPure(task.tool);
      case "approval":
      case "timer":
      case "signal":
        return true;
      default:
        return false;
    }
  }

  #maybeQuiet(): void {
    if (!this.#gone && this.quiet) this.#options.onQuiet(this);
  }

  /** Begins a step that is ready, or goes on with it. */
  #goOn(node: PlanNode, step: StepState | undefined): void {
    if (!this.#mayBegin()) return;
    const place = placeOf(node.name);
    try {
      if (step === undefined && !isTaken(this.run, node)) {
        this.#follow(this.record([{ type: "step.skipped", place }]));
        return;
      }
      switch (node.task.kind) {
        case "tool":
        case "model":
        case "agent":
          if (step?.retryAtMs === undefined) this.#attempts.begin(place, node, node.task);
          break;
        case "fan-out":
          this.#beginItems(node);
          break;
        default:
          // A child that was to be started may not be there yet.
          if (step?.wait === undefined || step.wait.for === "child") this.#beginWait(node, place);
      }
    } catch (error) {
      this.#follow(this.record([evaluationFailed(this.run, place, error)]));
    }
  }

  #beginWait(node: PlanNode, place: StepPlace): void {
    const { run, services } = this;
    const { task } = node;
    const stepId = run.stepIdAt(place);
    const nowMs = services.now();
    const waits = (wait: Wait): Promise<void> => this.record([{ type: "step.waiting", stepId, place, wait }]);
    switch (task.kind) {
      case "approval": {
        const prompt = resolveText(task.prompt, scopeOf(run));
        this.#follow(waits({ for: "approval", prompt, expiresAtMs: after(nowMs, task.expiresAfterMs) }));
        return;
      }
      case "timer": {
        const dueAtMs =
          "durationMs" in task.due ? nowMs + task.due.durationMs : timeOf(resolve(task.due.until, scopeOf(run)));
        this.#follow(waits({ for: "timer", dueAtMs }));
        return;
      }
      case "signal": {
        const kept = run.signals.find(({ signal }) => signal === task.signal);
        this.#follow(
          kept === undefined
            ? waits({ for: "signal", signal: task.signal, expiresAtMs: after(nowMs, task.expiresAfterMs) })
            : this.record([{ ...succeeded(place, stepId, 0, kept.payload), signalSeq: kept.seq }]),
        );
        return;
      }
      case "child-run":
        this.#startChild(place, task);
        return;
      default:
        throw new TypeError(`${node.name} does not wait`);
    }
  }

  #startChild(place: StepPlace, task: Extract<CompiledItemTask, { kind: "child-run" }>): void {
    const { run } = this;
    const input = task.input === undefined ? null : resolve(task.input, scopeOf(run, itemScope(run, place)));
    const stepId = run.stepIdAt(place);
    this.#follow(
      this.#options.startChild(this, place, stepId, input).catch((error: unknown) => {
        if (!(error instanceof AppError) || !refusesChild.has(error.reason)) throw error;
        return this.record([failed(place, stepId, 1, toStepError(error))]);
      }),
    );
  }

  #beginItems(node: PlanNode): void {
    if (!this.#mayBegin() || node.task.kind !== "fan-out") return;
    const { run } = this;
    const place = placeOf(node.name);
    const { task, concurrency } = node.task;
    const list = listOf(run, node);
    if (list.length === 0) {
      this.#follow(this.record([succeeded(place, run.stepIdAt(place), 1, inline([]))]));
      return;
    }
    const step = run.steps[node.position];
    if (step?.endedAtMs !== undefined) return;
    // Those that were begun before, and are under way nowhere.
    for (const item of step?.items ?? []) {
      if (item === undefined || item.endedAtMs !== undefined || item.retryAtMs !== undefined) continue;
      if (!this.#attempts.has(item.stepId)) this.#beginItem(node, item.place, task);
    }
    const inFlight = this.#attempts
      .all()
      .filter((each) => each.place.name === node.name && run.at(each.place) === undefined).length;
    for (const index of itemsToBegin(step, list.length, concurrency - inFlight)) {
      const item = itemPlace(node.name, index);
      if (!this.#attempts.has(run.stepIdAt(item))) this.#beginItem(node, item, task);
    }
  }

  #beginItem(node: PlanNode, place: StepPlace, task: CompiledItemTask): void {
    if (task.kind === "child-run") this.#startChild(place, task);
    else this.#attempts.begin(place, node, task);
  }

  #again(step: StepState): void {
    const node = this.run.node(step.place.name);
    if (step.place.compensation) {
      if (node.compensation !== undefined) this.#attempts.begin(step.place, node, node.compensation);
      return;
    }
    if (!this.#mayBegin()) return;
    const task = node.task.kind === "fan-out" ? node.task.task : node.task;
    if (task.kind === "tool" || task.kind === "model" || task.kind === "agent") {
      this.#attempts.begin(step.place, node, task);
    }
  }

  #expire(step: StepState, wait: Wait, nowMs: number): void {
    if (this.run.stopping) return;
    const { place, stepId } = step;
    if (wait.for === "timer" && wait.dueAtMs <= nowMs) {
      this.#follow(this.record([succeeded(place, stepId, 0, inline({ at: new Date(nowMs).toISOString() }))]));
    } else if ((wait.for === "signal" || wait.for === "approval") && (wait.expiresAtMs ?? Infinity) <= nowMs) {
      const message = wait.for === "signal" ? `no message ${wait.signal} came in time` : "nobody decided in time";
      this.#follow(this.record([failed(place, stepId, 0, { reason: "WAIT_EXPIRED", message })]));
    }
  }

  #waitingFor(signal: string): StepState | undefined {
    return this.run
      .allSteps()
      .find((step) => step.endedAtMs === undefined && step.wait?.for === "signal" && step.wait.signal === signal);
  }

  /** Whether something may begin now; says why not, if that is the run's own fault. */
  #mayBegin(): boolean {
    const { run } = this;
    if (this.#gone || run.ended !== undefined || run.parked !== undefined || run.stopping) return false; // 3
    if (run.head >= maxHistory) {
      this.#park({
        reason: "RUN_HISTORY_FULL",
        message: `the history of the run has ${run.head} entries, and may have ${maxHistory}`,
        diff: [],
      });
      return false;
    }
    if (run.begun + this.#attempts.size >= run.accepted.maxSteps) {
      const message = `the run began ${run.accepted.maxSteps} steps, and may not begin more`;
      this.#follow(this.record([{ type: "run.failing", step: "", error: { reason: "RUN_BUDGET", message } }]));
      return false;
    }
    return true;
  }

  #park(parked: Parked): void {
    if (this.run.parked !== undefined || this.run.ended !== undefined) return;
    this.services.log.warn({ runId: this.run.runId, reason: parked.reason }, "a run is parked");
    this.#follow(this.record([{ type: "run.parked", parked }]));
  }

  /** For whom and what tools are called now. */
  caller(): ToolCaller {
    const { accepted, runId } = this.run;
    return {
      principal: this.#principal,
      requestId: accepted.requestId === "" ? newId("req") : accepted.requestId,
      traceparent: accepted.traceparent,
      runId,
      sessionId: "",
      epoch: this.epoch,
    };
  }

  /** An attempt takes longer than a moment: readers are told that it began. */
  onSlow({ place, stepId }: Attempt, attempt: number): void {
    if (this.#gone || this.run.parked !== undefined || this.run.at(place)?.endedAtMs !== undefined) return;
    this.#follow(this.record([{ type: "graph.step.started", stepId, place, attempt }]));
  }

  async onOver(attempt: Attempt, bodies: readonly EntryBody[]): Promise<void> {
    if (this.#gone) return;
    // Whoever stopped the run asks the tool how far it got.
    if (bodies.length === 0 || attempt.stopped) {
      this.#maybeQuiet();
      return;
    }
    try {
      await this.record(bodies);
    } catch (error) {
      this.#broken(error);
    }
  }

  async onBroken(attempt: Attempt, error: unknown): Promise<void> {
    if (this.#gone || attempt.stopped) return;
    if (error instanceof AppError && (error.reason === "PRINCIPAL_REVOKED" || error.reason === "NON_DETERMINISTIC")) {
      this.#park({ reason: error.reason, message: error.message, diff: [] });
      this.#maybeQuiet();
      return;
    }
    if (error instanceof AppError && !isLost(error) && error.reason !== "EPOCH_STALE") {
      this.#follow(this.record([this.#attempts.failure(attempt, toStepError(error))]));
      return;
    }
    this.#broken(error);
  }

  /** Stops what is under way, undoes what was done if that is asked for, and ends the run. */
  #beginStop(): void {
    if (this.#gone || this.run.ended !== undefined || this.#stopping !== undefined) return;
    this.#stopping = this.#stop()
      .catch((error: unknown) => this.#broken(error))
      .finally(() => {
        this.#stopping = undefined;
        this.#maybeQuiet();
      });
  }

  async #stop(): Promise<void> {
    const { run } = this;
    const { stopped, over } = this.#attempts.stop();
    const caller = this.caller();
    const bodies = await receiptsOf(run, {
      flights: stopped,
      cancel: (stepId) => this.services.tools.cancel(caller, stepId),
      stopChild: (childRunId) => this.#stopChild(childRunId),
    });
    await over;
    if (this.#gone) return;
    if (bodies.length > 0) await this.record(bodies.filter(({ place }) => run.at(place)?.endedAtMs === undefined));
    if (this.#gone) return;
    const [next] = compensationsLeft(run);
    if (next?.compensation !== undefined) {
      const state = run.steps[next.position]?.compensation;
      // Its end, or its next attempt, comes back here.
      if (state?.retryAtMs === undefined) {
        this.#attempts.begin({ name: next.name, index: undefined, compensation: true }, next, next.compensation);
      }
      return;
    }
    await this.record([{ type: "graph.ended", end: endOf(run) }]);
  }

  async #stopChild(childRunId: string): Promise<Receipt> {
    const ended = new Promise<void>((resolve) => this.#childWaiters.set(childRunId, resolve));
    await this.#options.cancelChild(childRunId, this.run.failing !== undefined || this.run.cancel?.compensate === true);
    await ended;
    this.#childWaiters.delete(childRunId);
    return "partial";
  }

  /** What a child is told that is not to be found: it had ended already. */
  childGone(childRunId: string): void {
    this.#childWaiters.get(childRunId)?.();
  }

  #follow(stored: Promise<unknown>): void {
    stored.catch((error: unknown) => this.#broken(error));
  }

  #broken(error: unknown): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#options.onBroken(error); // 4
  }
}

function endOf(run: GraphRun): GraphEnd {
  if (run.failing !== undefined) return { state: "failed", ...run.failing };
  if (run.cancel?.cause === "budget") {
    return { state: "failed", error: { reason: "RUN_BUDGET", message: run.cancel.reason }, step: "" };
  }
  return { state: "cancelled" };
}

function after(nowMs: number, afterMs: number | undefined): number | undefined {
  return afterMs === undefined ? undefined : nowMs + afterMs;
}

function timeOf(value: Json): number {
  const ms = typeof value === "string" ? Date.parse(value) : Number.NaN;
  if (Number.isNaN(ms)) throw new AppError("EVALUATION_FAILED", "the time to wait for is no RFC 3339 text");
  return ms;
}
