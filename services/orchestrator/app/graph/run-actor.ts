/**
 * A root run and what hangs under it, at their owner: takes commands one after
 * the other, and runs each graph. Nothing here is the truth: an actor that
 * fails is dropped, and the next one reads what is stored.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Principal, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import {
  type Command,
  type CommandReply,
  CommandReplySchema,
} from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { RunState as ProtoRunState, RunSchema, RunStepSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { AppError } from "../../../runtime/errors/app-error.ts";
import { fromUuid, toUuid } from "../../../runtime/ids/id.ts";
import type { EntryBody, GraphAccepted, GraphEnd, GraphStarted, Payload, StepPlace } from "../../domain/entry.ts";
import { GraphRun, placeOf } from "../../domain/graph-run.ts";
import type { Json } from "../../domain/json.ts";
import { derivedRunId } from "../../domain/step-id.ts";
import { type Committer, isLost } from "../../store/committer.ts";
import { graphDigest } from "../../store/graph-codec.ts";
import { fromProtoValue } from "../../store/proto-values.ts";
import type { RootState, RunStore } from "../../store/run-store.ts";
import { encodeReply, refusal } from "../command-reply.ts";
import { Mailbox } from "../mailbox.ts";
import { loopRun } from "./agent-loop.ts";
import type { GraphServices } from "./graph-context.ts";
import { GraphExecutor } from "./graph-executor.ts";
import { planOf } from "./plans.ts";
import { graphOf, pinsOfChild } from "./resolve-pins.ts";
import type { EndedRun } from "./run-ends.ts";
import { RunJournal, type StoredWith, viewOf } from "./run-journal.ts";

/** What root runs of this process share. */
export interface RunActorServices extends GraphServices {
  readonly runs: RunStore;
  /** The name of the model that is meant by none. */
  readonly defaultModel: string;
}

export interface RunActorOptions {
  readonly services: RunActorServices;
  readonly committer: Committer;
  readonly epoch: bigint;
  /** As stored; of a new root, without runs. */
  readonly state: RootState;
  /** Told when something will be due. */
  readonly onWake: (atMs: number) => void;
  /** The actor cannot go on: drop it, and load the root anew when it is needed. */
  readonly onBroken: () => void;
  /** Nothing is under way any more: it may be dropped at once. */
  readonly onQuiet: () => void;
  /** A run under the root ended. */
  readonly onEnded: (runUuid: string, ended: EndedRun) => void;
}

/** The owner of one root run. */
export class RunActor {
  readonly kind = "run";
  readonly rootUuid: string;
  readonly orgUuid: string;
  readonly #options: RunActorOptions;
  readonly #journal: RunJournal;
  readonly #executors = new Map<string, GraphExecutor>();
  readonly #mailbox = new Mailbox(() => {
    this.#usedMs = performance.now();
    this.#maybeQuiet();
  });
  /** Children that are being started. */
  #starting = 0;
  #usedMs = performance.now();
  #gone: "broken" | "closed" | undefined;

  constructor(options: RunActorOptions) {
    const { state, services, committer, epoch } = options;
    this.#options = options;
    this.rootUuid = state.rootId;
    this.orgUuid = state.orgId;
    committer.open({
      rootId: state.rootId,
      shard: state.shard,
      epoch,
      lastSeq: 0,
      runs: state.open.map(({ runId, head, chain, state: standing, wakeAtMs }) => ({
        runId,
        head,
        chain,
        state: standing,
        wakeAtMs,
      })),
    });
    this.#journal = new RunJournal({
      rootUuid: state.rootId,
      epoch,
      committer,
      now: services.now,
      onWake: options.onWake,
    });
  }

  /** Whether it can be dropped without stopping anything. */
  get idle(): boolean {
    return (
      this.#mailbox.empty && this.#starting === 0 && [...this.#executors.values()].every((executor) => executor.quiet)
    );
  }

  /** Since when nothing happened, on the monotonic clock. */
  get usedMs(): number {
    return this.#usedMs;
  }

  /** Folds what is stored and goes on. Runs that cannot be gone on with are parked. */
  async resume(writer: bigint): Promise<void> {
    const { state, services } = this.#options;
    for (const { runId, message } of state.damaged) await this.#parkDamaged(writer, runId, "DATA_LOSS", message);
    const resumed: GraphExecutor[] = [];
    for (const { runId: runUuid, entries } of state.open) {
      try {
        const run = await this.#fold(fromUuid("run", runUuid), entries);
        resumed.push(this.#add(run, fromBinary(PrincipalSchema, run.principal)));
      } catch (error) {
        if (!(error instanceof AppError) || (error.reason !== "DATA_LOSS" && error.reason !== "NON_DETERMINISTIC")) {
          throw error;
        }
        services.log.error({ err: error, runUuid }, "a run cannot be gone on with");
        await this.#parkDamaged(writer, runUuid, error.reason, error.message);
      }
    }
    // Children first: a parent that waits for one finds it.
    for (const executor of resumed.reverse()) executor.resume();
    this.#maybeQuiet();
  }

  /** Does what is due. */
  wake(): void {
    for (const executor of this.#executors.values()) executor.wake();
  }

  /** Stores a new root run with its first entries, and begins it. */
  async start(accepted: GraphAccepted, bodies: readonly EntryBody[], more: Omit<StoredWith, "newRun">): Promise<void> {
    const atMs = this.#journal.now();
    const runId = fromUuid("run", this.rootUuid);
    const executor = this.#accept(runId, accepted, bodies, atMs);
    await executor.begin([accepted, ...bodies], atMs, { ...more, newRun: this.#newRun(runId, accepted) });
  }

  /**
   * Executes a command. With a `commandId` of the inbox the answer is stored
   * with what the command changed; a command that is being executed is not begun
   * again, and answered with undefined.
   *
   * @throws AppError why it was refused
   */
  execute(command: Command, commandId?: string): Promise<CommandReply | undefined> {
    return this.#mailbox.post(() => this.#execute(command, commandId), commandId);
  }

  /** Cuts everything off without writing: another process goes on, or a later start. */
  async close(): Promise<void> {
    this.#gone ??= "closed";
    await Promise.all([...this.#executors.values()].map((executor) => executor.close()));
    await this.#mailbox.settled();
    this.#options.committer.close(this.rootUuid);
  }

  async #execute(command: Command, commandId: string | undefined): Promise<CommandReply> {
    try {
      if (this.#gone !== undefined) throw new AppError("FENCED", "the run moved to another process");
      if (command.deadline !== undefined && timestampMs(command.deadline) < Date.now()) {
        throw new AppError("DEADLINE_EXCEEDED", "the deadline passed before the command was begun");
      }
      return await this.#perform(command, commandId);
    } catch (error) {
      // What waits in the inbox is left to the next owner.
      if (!(error instanceof AppError) || isLost(error)) {
        this.#break(error);
        throw error;
      }
      if (error.reason === "INTERNAL") this.#break(error);
      if (commandId !== undefined && this.#gone === undefined) {
        await this.#journal.answer({ commandId, reply: refusal(error) });
      }
      throw error;
    }
  }

  async #perform(command: Command, commandId: string | undefined): Promise<CommandReply> {
    const { request, requestId } = command;
    const principal = principalOf(command);
    const encoded = toBinary(PrincipalSchema, principal);
    const answered = (reply: CommandReply): StoredWith =>
      commandId === undefined ? {} : { reply: { commandId, reply: encodeReply(reply) } };
    const answerOnly = async (reply: CommandReply): Promise<CommandReply> => {
      if (commandId !== undefined) await this.#journal.answer({ commandId, reply: encodeReply(reply) });
      return reply;
    };
    switch (request.case) {
      case "cancelRun": {
        const executor = this.#openRun(request.value.runId);
        const reply = create(CommandReplySchema, {
          outcome: { case: "cancelRun", value: { run: shown(executor.run) } },
        });
        if (executor.run.cancel !== undefined) return await answerOnly(reply);
        await executor.cancel("caller", requestId, request.value.reason, request.value.compensate, answered(reply));
        return reply;
      }
      case "resumeRun": {
        const executor = this.#openRun(request.value.runId);
        if (executor.run.parked === undefined) throw new AppError("RUN_NOT_PARKED", "the run is not parked");
        const reply = create(CommandReplySchema, {
          outcome: { case: "resumeRun", value: { run: shown(executor.run) } },
        });
        await executor.unpark(principal, encoded, requestId, answered(reply));
        return reply;
      }
      case "signalRun": {
        const { runId, signal, payload } = request.value;
        const executor = this.#openRun(runId);
        const value: Payload = { value: payload === undefined ? null : fromProtoValue(payload), blob: undefined };
        const seq = BigInt(executor.run.head + 1);
        const reply = create(CommandReplySchema, { outcome: { case: "signalRun", value: { seq } } });
        const body = { type: "signal.received", signal, payload: value, by: principal.subject, requestId } as const;
        await executor.signal(body, answered(reply));
        return reply;
      }
      case "decideApproval": {
        const { runId, step, approved, reason } = request.value;
        const executor = this.#openRun(runId);
        if (!executor.run.plan.byName.has(step)) throw new AppError("STEP_NOT_FOUND", `the run has no step ${step}`);
        const shownStep = create(RunStepSchema, { name: step, stepId: executor.run.stepIdAt(placeOf(step)) });
        const reply = create(CommandReplySchema, { outcome: { case: "decideApproval", value: { step: shownStep } } });
        const known = executor.run.at(placeOf(step));
        if (known?.endedAtMs !== undefined && isSameDecision(known.output?.value, known.error?.reason, approved)) {
          return await answerOnly(reply);
        }
        const body = {
          type: "approval.decided",
          place: placeOf(step),
          approved,
          by: principal.subject,
          reason,
          requestId,
        } as const;
        await executor.decide(body, answered(reply));
        return reply;
      }
      default:
        throw new AppError("UNIMPLEMENTED", "the command is unknown here");
    }
  }

  #openRun(runId: string): GraphExecutor {
    const executor = this.#executors.get(runId);
    if (executor === undefined || executor.run.ended !== undefined)
      throw new AppError("RUN_ENDED", "the run has ended");
    return executor;
  }

  async #fold(runId: string, entries: RootState["open"][number]["entries"]): Promise<GraphRun> {
    const { services } = this.#options;
    const [first, ...rest] = entries;
    if (first?.body.type !== "graph.accepted") throw new AppError("NON_DETERMINISTIC", "the run is none of a graph");
    const run = new GraphRun(runId, planOf(first.body.graph), first, loopRun(services.defaultModel));
    const load = async (payload: Payload | undefined): Promise<Payload | undefined> =>
      payload?.blob === undefined
        ? payload
        : { ...payload, value: await services.payloads.load(this.orgUuid, payload) };
    // Values are read before they are folded, since what follows may depend on them.
    Object.assign(first.body, { input: (await load(first.body.input)) ?? first.body.input });
    for (const entry of rest) {
      const { body } = entry;
      if (body.type === "graph.step.succeeded" && body.output?.blob !== undefined) {
        run.apply({ ...entry, body: { ...body, output: await load(body.output) } });
      } else {
        run.apply(entry);
      }
    }
    return run;
  }

  #accept(runId: string, accepted: GraphAccepted, bodies: readonly EntryBody[], atMs: number): GraphExecutor {
    const { services } = this.#options;
    const run = new GraphRun(runId, planOf(accepted.graph), { atMs, body: accepted }, loopRun(services.defaultModel));
    for (const body of bodies) run.apply({ atMs, body });
    return this.#add(run, fromBinary(PrincipalSchema, accepted.principal));
  }

  #add(run: GraphRun, principal: Principal): GraphExecutor {
    const { services } = this.#options;
    const executor = new GraphExecutor({
      run,
      services,
      journal: this.#journal,
      orgUuid: this.orgUuid,
      principal,
      defaultModel: services.defaultModel,
      startChild: async (parent, place, stepId, input) => {
        this.#starting += 1;
        try {
          await this.#startChild(parent, place, stepId, input);
        } finally {
          this.#starting -= 1;
          this.#maybeQuiet();
        }
      },
      cancelChild: (childRunId, compensate) => this.#cancelChild(run.runId, childRunId, compensate),
      onEnded: (ended) => this.#ended(ended),
      onQuiet: () => this.#maybeQuiet(),
      onBroken: (error) => this.#break(error),
    });
    this.#executors.set(run.runId, executor);
    return executor;
  }

  /** Starts the child of a step, or finds the one that it has. */
  async #startChild(parent: GraphExecutor, place: StepPlace, stepId: string, input: Json): Promise<void> {
    const { run } = parent;
    const runId = derivedRunId(run.runId, stepId);
    const step = run.at(place);
    if (step?.wait?.for === "child") {
      if (this.#executors.has(runId)) return;
      const end = await this.#options.services.runs.findEnd(toUuid("run", runId));
      if (end !== undefined) {
        parent.childEnded(place, runId, await this.#loaded(end));
        return;
      }
    }
    const node = run.node(place.name);
    const task = node.task.kind === "fan-out" ? node.task.task : node.task;
    if (task.kind !== "child-run" || run.started === undefined) throw new TypeError(`${place.name} starts no run`);
    const { definition } = task;
    const agent = "agent" in definition ? run.started.agents.find(({ name }) => name === definition.agent) : undefined;
    const graph = "graph" in definition ? definition.graph : agent === undefined ? undefined : graphOf(agent);
    if (graph === undefined) throw new AppError("AGENT_NOT_FOUND", "the agent of a child run has no graph");
    if (run.accepted.depth + 1 > maxDepth) {
      throw new AppError("LIMIT_EXCEEDED", `runs may stand at most ${maxDepth} deep`);
    }
    const accepted: GraphAccepted = {
      type: "graph.accepted",
      principal: run.principal,
      requestId: run.accepted.requestId,
      traceparent: run.accepted.traceparent,
      agent,
      graph,
      digest: graphDigest(graph),
      input: { value: input, blob: undefined },
      labels: {},
      maxSteps: run.accepted.maxSteps,
      maxDurationMs: Math.max(1, run.deadlineMs - this.#journal.now()),
      parent: { runId: run.runId, stepId },
      depth: run.accepted.depth + 1,
      forkedFrom: undefined,
      scheduleId: run.accepted.scheduleId,
    };
    const started: GraphStarted = pinsOfChild(run.started, planOf(graph));
    if (step?.wait?.for !== "child") {
      // The parent says first whom it waits for: the child is started again by whoever finds it missing.
      await parent.record([{ type: "step.waiting", stepId, place, wait: { for: "child", runId } }]);
    }
    const atMs = this.#journal.now();
    const child = this.#accept(runId, accepted, [started], atMs);
    await child.begin([accepted, started], atMs, { newRun: this.#newRun(runId, accepted, run.runId) });
  }

  async #cancelChild(parentRunId: string, childRunId: string, compensate: boolean): Promise<void> {
    const child = this.#executors.get(childRunId);
    if (child === undefined || child.run.ended !== undefined) {
      this.#executors.get(parentRunId)?.childGone(childRunId);
      return;
    }
    await child.cancel("parent", "", "the run that started it was stopped", compensate);
  }

  #ended(executor: GraphExecutor): void {
    const { run } = executor;
    const { parent } = run.accepted;
    this.#usedMs = performance.now();
    this.#executors.delete(run.runId);
    if (run.ended === undefined) return;
    const { end, atMs } = run.ended;
    this.#options.onEnded(toUuid("run", run.runId), { end, head: run.head, endedAtMs: atMs });
    if (parent !== undefined) {
      const above = this.#executors.get(parent.runId);
      const place = above === undefined ? undefined : placeOfChild(above.run, run.runId);
      if (above !== undefined && place !== undefined) above.childEnded(place, run.runId, run.ended.end);
    }
    this.#maybeQuiet();
  }

  async #loaded(end: GraphEnd): Promise<GraphEnd> {
    if (end.state !== "succeeded" || end.output.blob === undefined) return end;
    const value = await this.#options.services.payloads.load(this.orgUuid, end.output);
    return { ...end, output: { ...end.output, value } };
  }

  #newRun(runId: string, accepted: GraphAccepted, parentRunId?: string): NonNullable<StoredWith["newRun"]> {
    return {
      runId: toUuid("run", runId),
      orgId: this.orgUuid,
      sessionId: undefined,
      parentRunId: parentRunId === undefined ? undefined : toUuid("run", parentRunId),
      ordinal: undefined,
      name: accepted.graph.name,
      labels: accepted.labels,
      scheduleId: accepted.scheduleId === undefined ? undefined : toUuid("sch", accepted.scheduleId),
      view: new Uint8Array(),
    };
  }

  async #parkDamaged(
    writer: bigint,
    runUuid: string,
    reason: "DATA_LOSS" | "NON_DETERMINISTIC",
    message: string,
  ): Promise<void> {
    const view = viewOf({ parked: { reason: Reason[reason], message, diff: [] } });
    await this.#options.services.runs.parkDamaged(writer, runUuid, view);
  }

  #maybeQuiet(): void {
    if (this.#gone === undefined && this.idle) this.#options.onQuiet();
  }

  #break(error: unknown): void {
    if (this.#gone !== undefined) return;
    this.#gone = "broken";
    if (!(error instanceof AppError) || error.reason === "INTERNAL") {
      this.#options.services.log.error({ err: error, rootUuid: this.rootUuid }, "a run failed here");
    }
    for (const executor of this.#executors.values()) void executor.close();
    this.#options.onBroken();
  }
}

/** How many runs may stand above one another. */
const maxDepth = 8;

function placeOfChild(parent: GraphRun, childRunId: string): StepPlace | undefined {
  for (const step of parent.steps) {
    if (step?.wait?.for === "child" && step.wait.runId === childRunId) return step.place;
    const item = step?.items.find((each) => each?.wait?.for === "child" && each.wait.runId === childRunId);
    if (item !== undefined) return item.place;
  }
  return undefined;
}

/** What a command is answered with of a run; readers get the rest from its journal. */
function shown(run: GraphRun) {
  const state = run.parked === undefined ? ProtoRunState.RUNNING : ProtoRunState.PARKED;
  return create(RunSchema, { runId: run.runId, name: run.accepted.graph.name, state, lastSeq: BigInt(run.head) });
}

function isSameDecision(output: Json | undefined, reason: string | undefined, approved: boolean): boolean {
  if (reason === "APPROVAL_REFUSED") return !approved;
  return typeof output === "object" && output !== null && "approved" in output && output["approved"] === approved;
}

function principalOf(command: Command): Principal {
  if (command.principal === undefined) throw new TypeError("a command without a principal");
  return command.principal;
}
