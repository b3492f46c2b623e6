/**
 * A session at its owner: takes its commands one after the other, and runs its
 * turns one at a time. Nothing here is the truth: an actor that fails is
 * dropped, and the next one reads what is stored.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import {
  type Command,
  type CommandReply,
  CommandReplySchema,
} from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import {
  type CancelTurnRequest,
  OnBusy,
  type SendTurnRequest,
  SendTurnRequestSchema,
  TurnSchema,
} from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { Limits } from "../../runtime/identity/limits.ts";
import { fromUuid, newId, toUuid } from "../../runtime/ids/id.ts";
import { compileJsonSchema } from "../../runtime/json-schema/json-schema.ts";
import { within } from "../../runtime/wait/within.ts";
import type { CancelCause, EntryBody, RunAccepted } from "../domain/entry.ts";
import type { JsonObject } from "../domain/json.ts";
import { limitExceeded } from "../domain/limit.ts";
import { fold, type Run } from "../domain/run.ts";
import type { AnswerStore } from "../store/answer-store.ts";
import { runState } from "../store/append-store.ts";
import { type Committer, isLost } from "../store/committer.ts";
import type { SessionState, SessionStore, StoredSession } from "../store/session-store.ts";
import { encodeReply, refusal } from "./command-reply.ts";
import { History } from "./history.ts";
import { answerTo, findAnswer } from "./idempotency.ts";
import { Mailbox } from "./mailbox.ts";
import { runTurn, turnEnded } from "./run-turn.ts";
import { SessionJournal, Turn, type TurnStep } from "./session-journal.ts";
import { tracedFrom } from "./traced.ts";
import type { TurnServices } from "./turn-context.ts";
import { encodeTurnView, toTurn } from "./turn-view.ts";

/** What sessions of this process share. */
export interface ActorServices extends TurnServices {
  readonly sessions: SessionStore;
  readonly answers: AnswerStore;
  readonly limits: Limits;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** How many turns of an org are being accepted by this process and are not stored yet. */
  readonly accepting: Map<string, number>;
}

export interface ActorOptions {
  readonly services: ActorServices;
  readonly committer: Committer;
  readonly epoch: bigint;
  readonly state: SessionState;
  /** The actor cannot go on: drop it, and load the session anew when it is needed. */
  readonly onBroken: () => void;
  /** The session is gone. */
  readonly onDeleted: () => void;
}

const sendTurnMethod = "SendTurn";
/** How long a deletion waits for the turn that it cancelled, in milliseconds. */
const deletionWaitMs = 10_000;

/** The owner of one session. */
export class SessionActor {
  readonly kind = "session";
  readonly sessionUuid: string;
  readonly #options: ActorOptions;
  readonly #session: StoredSession;
  readonly #journal: SessionJournal;
  readonly #history: History;
  /** Turns that have not ended, in order; the first one runs. */
  readonly #turns: Turn[] = [];
  readonly #mailbox = new Mailbox(() => {
    this.#usedMs = performance.now();
  });
  #lastOrdinal: number;
  #running: Promise<void> | undefined;
  #gone: "broken" | "deleted" | "closed" | undefined;
  #usedMs: number;

  constructor(options: ActorOptions) {
    const { state, services, committer, epoch } = options;
    this.#options = options;
    this.#session = state.session;
    this.sessionUuid = state.session.sessionId;
    this.#lastOrdinal = state.lastOrdinal;
    this.#usedMs = performance.now();
    committer.open({
      rootId: state.session.sessionId,
      shard: state.session.shard,
      epoch,
      lastSeq: state.session.lastSeq,
      runs: state.open.map(({ run, chain }) => ({
        runId: toUuid("run", run.runId),
        head: run.head,
        chain,
        state: runState.running,
        wakeAtMs: undefined,
      })),
    });
    this.#journal = new SessionJournal({
      sessionId: fromUuid("ses", state.session.sessionId),
      orgId: fromUuid("org", state.session.orgId),
      epoch,
      lastSeq: state.session.lastSeq,
      committer,
      now: services.now,
    });
    this.#history = new History(services.sessions, state.session.sessionId);
    for (const { run, ordinal, view } of state.open) {
      this.#history.leaveOut(run.accepted.leavesOut);
      const afterSeq = Number(fromBinary(TurnSchema, view).afterSeq);
      this.#turns.push(new Turn(run, ordinal, afterSeq, fromBinary(PrincipalSchema, run.accepted.principal)));
    }
  }

  /** Whether it can be dropped without stopping anything. */
  get idle(): boolean {
    return this.#mailbox.empty && this.#running === undefined && this.#turns.length === 0;
  }

  /** The UUID of the org that the session belongs to. */
  get orgUuid(): string {
    return this.#session.orgId;
  }

  /** Since when nothing happened, on the monotonic clock. */
  get usedMs(): number {
    return this.#usedMs;
  }

  /**
   * Goes on with the turns that were open when the session was loaded. Those
   * that cannot be gone on with are parked; their readers are told first, as
   * that is the last that is heard of them.
   */
  async resume(writer: bigint): Promise<void> {
    const { state, services } = this.#options;
    for (const { runId: runUuid, message } of state.damaged) {
      const runId = fromUuid("run", runUuid);
      services.log.error({ runId, message }, "a turn is parked");
      await this.#journal.tellOfLoss(runId, { reason: "DATA_LOSS", message });
      await services.sessions.parkDamaged(writer, runUuid);
    }
    this.#next();
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
    for (const turn of this.#turns) turn.stop("abandon");
    await this.#running;
    await this.#mailbox.settled();
    this.#options.committer.close(this.sessionUuid);
  }

  async #execute(command: Command, commandId: string | undefined): Promise<CommandReply> {
    try {
      if (this.#gone === "deleted") throw new AppError("SESSION_NOT_FOUND", "no such session");
      if (this.#gone !== undefined) throw new AppError("FENCED", "the session moved to another process");
      if (command.deadline !== undefined && timestampMs(command.deadline) < this.#options.services.now()) {
        throw new AppError("DEADLINE_EXCEEDED", "the deadline passed before the command was begun");
      }
      switch (command.request.case) {
        case "sendTurn":
          return await this.#sendTurn(command, command.request.value, commandId);
        case "cancelTurn":
          return await this.#cancelTurn(command, command.request.value, commandId);
        case "deleteSession":
          return await this.#delete(command, commandId);
        default:
          throw new AppError("UNIMPLEMENTED", "the command is unknown here");
      }
    } catch (error) {
      // What waits in the inbox is left to the next owner.
      if (!(error instanceof AppError) || isLost(error)) {
        this.#break();
        throw error;
      }
      if (error.reason === "INTERNAL") this.#break();
      if (commandId !== undefined && this.#gone !== "broken") {
        await this.#journal.store([], { standsAlone: true, reply: { commandId, reply: refusal(error) } });
      }
      throw error;
    }
  }

  async #sendTurn(command: Command, request: SendTurnRequest, commandId: string | undefined): Promise<CommandReply> {
    const { services } = this.#options;
    const repeatable =
      command.idempotencyKey === ""
        ? undefined
        : {
            orgUuid: this.#session.orgId,
            method: sendTurnMethod,
            key: command.idempotencyKey,
            request: toBinary(SendTurnRequestSchema, request),
          };
    const before = repeatable === undefined ? undefined : await findAnswer(services.answers, repeatable);
    if (before !== undefined) {
      if (commandId !== undefined) {
        await this.#journal.store([], { standsAlone: true, reply: { commandId, reply: encodeReply(before) } });
      }
      return before;
    }
    this.#journal.assertRoom();
    const leavesOut = request.onBusy === OnBusy.ROLLBACK ? await this.#rolledBack() : [];
    const accepted = { ...(await this.#accepted(command, request)), leavesOut };
    // From here to the submission nothing is awaited but the limits: the turns are as they are.
    await this.#assertWithinLimits();
    const open = this.#turns.filter((turn) => turn.run.ended === undefined);
    const steps: TurnStep[] = [];
    if (open.length > 0) {
      switch (request.onBusy) {
        case OnBusy.ENQUEUE: {
          const maxQueued = await services.limits.get(this.#journal.orgId, "queued_turns");
          const queued = this.#turns.filter((turn) => turn.run.ended === undefined).length - 1;
          if (queued >= maxQueued) throw limitExceeded(this.#session.orgId, "queued_turns", maxQueued);
          break;
        }
        case OnBusy.INTERRUPT:
          steps.push(...this.#cancelSteps(open, "interrupted", command.requestId));
          break;
        case OnBusy.ROLLBACK:
          steps.push(...this.#cancelSteps(open, "rolled-back", command.requestId));
          break;
        default:
          throw new AppError("SESSION_BUSY", "a turn of the session runs or waits");
      }
    }
    const runId = newId("run");
    const run: Run = fold(runId, undefined, { atMs: this.#journal.now(), body: accepted });
    const turn = new Turn(run, this.#lastOrdinal + 1, this.#journal.lastSeq, principalOf(command));
    const stored = toTurn(run, turn.afterSeq);
    // It begins at once, unless it has to wait for others.
    const view = open.length === 0 ? { ...stored, state: TurnState.RUNNING } : stored;
    const reply = create(CommandReplySchema, { outcome: { case: "sendTurn", value: { turn: view } } });
    const accepting = services.accepting.get(this.#session.orgId) ?? 0;
    services.accepting.set(this.#session.orgId, accepting + 1);
    try {
      await this.#journal.store([...steps, { turn, entries: [accepted] }], {
        newRun: {
          runId: toUuid("run", runId),
          orgId: undefined,
          sessionId: this.sessionUuid,
          parentRunId: undefined,
          ordinal: turn.ordinal,
          name: accepted.agent.name,
          labels: {},
          scheduleId: undefined,
          view: encodeTurnView(run, turn.afterSeq),
        },
        ...(repeatable === undefined ? {} : { answered: answerTo(repeatable, reply) }),
        ...(commandId === undefined ? {} : { reply: { commandId, reply: encodeReply(reply) } }),
        standsAlone: steps.length === 0,
      });
    } finally {
      const left = (services.accepting.get(this.#session.orgId) ?? 1) - 1;
      if (left > 0) services.accepting.set(this.#session.orgId, left);
      else services.accepting.delete(this.#session.orgId);
    }
    this.#lastOrdinal = turn.ordinal;
    this.#turns.push(turn);
    this.#history.leaveOut(leavesOut);
    if (steps.length > 0) this.#stopCancelled();
    this.#next();
    return reply;
  }

  /** What a rollback leaves out: the turns that run or wait, or else the last one. */
  async #rolledBack(): Promise<readonly string[]> {
    const open = this.#turns.filter((turn) => turn.run.ended === undefined);
    if (open.length > 0) return open.map((turn) => turn.run.runId);
    const last = await this.#history.last(this.#lastOrdinal + 1);
    return last === undefined ? [] : [last];
  }

  async #accepted(command: Command, request: SendTurnRequest): Promise<RunAccepted> {
    const { services } = this.#options;
    if (request.answerSchema !== undefined) compileJsonSchema(request.answerSchema, { field: "answer_schema" });
    const agent = await services.sessions.findAgent(this.#session.orgId, this.#session.agentId);
    if (agent === undefined) throw new AppError("AGENT_NOT_FOUND", "the session's agent is gone");
    const model = services.models.find(agent.model);
    if (model === undefined) throw new AppError("MODEL_NOT_FOUND", `no model ${agent.model} is configured`);
    if (!model.available) throw new AppError("MODEL_KEY_MISSING", `no key for the model ${model.name} is configured`);
    return {
      type: "run.accepted",
      sessionId: this.#journal.sessionId,
      principal: toBinary(PrincipalSchema, principalOf(command)),
      requestId: command.requestId,
      traceparent: command.traceparent,
      agent,
      text: request.text,
      answerSchema: request.answerSchema as JsonObject | undefined,
      leavesOut: [],
    };
  }

  async #assertWithinLimits(): Promise<void> {
    const { services } = this.#options;
    const { orgId } = this.#session;
    const most = await services.limits.get(this.#journal.orgId, "concurrent_turns");
    const open = await services.sessions.countOpenRuns(orgId);
    if (open + (services.accepting.get(orgId) ?? 0) >= most) throw limitExceeded(orgId, "concurrent_turns", most);
  }

  async #cancelTurn(
    command: Command,
    request: CancelTurnRequest,
    commandId: string | undefined,
  ): Promise<CommandReply> {
    const open = this.#turns.filter((turn) => turn.run.ended === undefined);
    const chosen = request.turnId === "" ? open : open.filter((turn) => turn.run.runId === request.turnId);
    if (request.turnId !== "" && chosen.length === 0) {
      const { sessions } = this.#options.services;
      const known = await sessions.findRun(this.#session.orgId, this.sessionUuid, toUuid("run", request.turnId));
      if (known === undefined) throw new AppError("TURN_NOT_FOUND", "no such turn");
    }
    // It may have ended while it was looked for.
    const cancelled = chosen.filter((turn) => turn.run.ended === undefined);
    const steps = this.#cancelSteps(cancelled, "caller", command.requestId);
    const views = cancelled.map((turn) => toTurn(turn.run, turn.afterSeq));
    const reply = create(CommandReplySchema, { outcome: { case: "cancelTurn", value: { turns: views } } });
    if (steps.length > 0 || commandId !== undefined) {
      await this.#journal.store(
        steps,
        commandId === undefined
          ? {}
          : { reply: { commandId, reply: encodeReply(reply) }, standsAlone: steps.length === 0 },
      );
    }
    this.#stopCancelled();
    return reply;
  }

  async #delete(command: Command, commandId: string | undefined): Promise<CommandReply> {
    const open = this.#turns.filter((turn) => turn.run.ended === undefined);
    const steps = this.#cancelSteps(open, "deleted", command.requestId);
    if (steps.length > 0) await this.#journal.store(steps);
    this.#stopCancelled();
    if (this.#running !== undefined) {
      await within(deletionWaitMs, this.#running, () => {
        throw new AppError("DEADLINE_EXCEEDED", "the turn that runs did not end in time");
      });
    }
    const reply = create(CommandReplySchema, { outcome: { case: "deleteSession", value: {} } });
    await this.#journal.store(
      [],
      commandId === undefined ? { deleted: true } : { deleted: true, reply: { commandId, reply: encodeReply(reply) } },
    );
    this.#gone = "deleted";
    this.#options.onDeleted();
    return reply;
  }

  /** What cancels turns: one that runs is told to end, one that waits ends at once. */
  #cancelSteps(turns: readonly Turn[], cause: CancelCause, requestId: string): TurnStep[] {
    return turns.map((turn) => {
      const entries: EntryBody[] =
        turn.run.cancel === undefined
          ? [{ type: "cancel.requested", cause, requestId, reason: "", compensate: false }]
          : [];
      if (turn === this.#turns[0] && this.#running !== undefined) return { turn, entries };
      const end = { state: "cancelled", toolsMayStillRun: [] } as const;
      entries.push({ type: "run.ended", end, started: turn.run.started !== undefined });
      return { turn, entries, events: [turnEnded(turn.run, end, this.#journal.now())] };
    });
  }

  /** Cuts off the turn that runs if its cancellation is stored, and forgets those that ended while they waited. */
  #stopCancelled(): void {
    for (const turn of [...this.#turns]) {
      if (turn === this.#turns[0] && this.#running !== undefined) {
        if (turn.run.cancel !== undefined) turn.stop("cancel");
      } else if (turn.run.ended !== undefined) {
        this.#forget(turn);
      }
    }
  }

  #forget(turn: Turn): void {
    const index = this.#turns.indexOf(turn);
    if (index >= 0) this.#turns.splice(index, 1);
    const { models } = this.#options.services;
    this.#history.add(turn.run, turn.ordinal, models.find(turn.run.accepted.agent.model)?.contextTokens ?? 0);
    this.#usedMs = performance.now();
  }

  /** Begins the first turn that waits, unless one runs. */
  #next(): void {
    const turn = this.#turns[0];
    if (this.#running !== undefined || this.#gone !== undefined || turn === undefined) return;
    if (turn.run.ended !== undefined) {
      this.#forget(turn);
      this.#next();
      return;
    }
    const { services } = this.#options;
    const context = { ...services, turn, journal: this.#journal, history: this.#history };
    const { traceparent } = turn.run.accepted;
    this.#running = tracedFrom(services.tracer, traceparent, "cadre.turn", { "cadre.run_id": turn.run.runId }, () =>
      runTurn(context),
    )
      .catch((error: unknown) => {
        services.log.warn({ err: error, runId: turn.run.runId }, "a turn could not go on here");
        turn.stop("abandon");
      })
      .then(() => {
        this.#running = undefined;
        if (turn.run.ended === undefined || turn.abandoned) {
          this.#break();
          return;
        }
        this.#forget(turn);
        this.#next();
      });
  }

  #break(): void {
    if (this.#gone !== undefined) return;
    this.#gone = "broken";
    for (const turn of this.#turns) turn.stop("abandon");
    this.#options.onBroken();
  }
}

function principalOf(command: Command) {
  if (command.principal === undefined) throw new TypeError("a command without a principal");
  return command.principal;
}
