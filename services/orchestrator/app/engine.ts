/**
 * The orchestrator's engine in one process: which shards it owns, what it
 * stores by whom, and how commands and new runs find their owner. The roots
 * themselves are in `roots.ts`, the way between processes in `command-inbox.ts`.
 */
import type { Command, CommandReply } from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { untilAborted } from "../../runtime/wait/until-aborted.ts";
import { limitExceeded } from "../domain/limit.ts";
import { shardOf } from "../domain/shard.ts";
import type { AppendStore } from "../store/append-store.ts";
import { Committer, type CommitterStatus } from "../store/committer.ts";
import { type InboxStore, inboxChannel } from "../store/inbox-store.ts";
import type { OwnershipStore } from "../store/ownership-store.ts";
import { everySession, noteOf } from "../store/postgres-append-store.ts";
import { CommandInbox } from "./command-inbox.ts";
import { DatabaseClock } from "./database-clock.ts";
import { EventFeed } from "./event-feed.ts";
import { OpenRunCounts } from "./graph/open-run-counts.ts";
import { prepareRun, type RunStart } from "./graph/prepare-run.ts";
import type { PinSources } from "./graph/resolve-pins.ts";
import type { RunActorServices } from "./graph/run-actor.ts";
import { type EndedRun, RunEnds } from "./graph/run-ends.ts";
import { findAnswer } from "./idempotency.ts";
import { type LossReason, Ownership } from "./ownership.ts";
import { type RootKind, Roots } from "./roots.ts";
import type { ActorServices } from "./session-actor.ts";
import { Waker } from "./waker.ts";

export interface EngineOptions {
  readonly services: Omit<ActorServices, "accepting"> & Omit<RunActorServices, "now">;
  /** Where what graphs name is looked up when their runs start. */
  readonly pins: PinSources;
  readonly append: AppendStore;
  readonly ownership: OwnershipStore;
  readonly inbox: InboxStore;
  /** For notifications between processes. */
  readonly notifications: Pick<Database<unknown>, "listen">;
  readonly process: string;
  readonly leaseMs: number;
  readonly previousWritersAreDead: boolean;
  /** Whether peers refuse what this process sends, because its clock is not theirs. Default: they do not. */
  readonly hasWrongClock?: () => boolean;
  /** Whether no other process can be there, to hear of what is stored. */
  readonly alone: boolean;
  readonly maxQueuedChanges?: number;
  readonly maxUnrelayedEntries?: number;
  /** As the committer's. */
  readonly onBackpressure?: (isOn: boolean) => void;
}

/** What an operator sees of the engine. */
export interface EngineStatus extends CommitterStatus {
  /** Undefined while the process owns nothing. */
  readonly writer: bigint | undefined;
  readonly shards: number;
  readonly sessions: number;
  readonly readers: number;
}

/** What works beside the actors on the shards of the process. */
export interface Companion {
  start(): Promise<void>;
  /** Shards came. */
  onShards(): void;
  stop(): Promise<void>;
}

/** How long a stop waits for changes to be stored, in milliseconds. */
const stopWaitMs = 5_000;
const sweepMs = 5_000;
/** How long the start of a run waits for a shard to be owned, in milliseconds. */
const placeWaitMs = 5_000;
/** How often a command is begun here that loses its shard each time. */
const maxTries = 3;

/** Runs sessions and runs. */
export class Engine {
  readonly feed = new EventFeed();
  readonly #options: EngineOptions;
  readonly #ownership: Ownership;
  readonly #clock = new DatabaseClock();
  readonly #waker: Waker;
  readonly #roots: Roots;
  readonly #inbox: CommandInbox;
  readonly #stopping = new AbortController();
  readonly #counts: OpenRunCounts;
  readonly #ends = new RunEnds();
  #committer: Committer | undefined;
  #unlisten: (() => Promise<void>)[] = [];
  #sweep: NodeJS.Timeout | undefined;
  readonly #companions: Companion[] = [];
  /** Who waits for shards to start a run in. */
  readonly #whenGained = new Set<() => void>();
  #onStored: () => void = () => undefined;

  constructor(options: EngineOptions) {
    this.#options = options;
    const { log } = options.services;
    this.#roots = new Roots({
      sessionServices: { ...options.services, accepting: new Map() },
      runServices: { ...options.services, now: this.#clock.now },
      committer: () => this.#committer,
      epochOf: (shard) => this.#ownership.epochOf(shard),
      stopping: this.stopping,
      onWake: (atMs) => this.#waker.at(atMs),
      onEnded: ({ rootId, orgId }, runUuid, ended) => {
        if (runUuid === rootId) this.#counts.ended(orgId);
        this.#ends.ended(runUuid, ended);
      },
      onDeleted: (sessionUuid) => this.feed.wake(sessionUuid),
    });
    this.#inbox = new CommandInbox({
      inbox: options.inbox,
      shards: () => this.shards,
      execute: (rootUuid, command, commandId) => this.#executeWaiting(rootUuid, command, commandId),
      stopping: this.stopping,
      log,
    });
    this.#waker = new Waker({
      runs: options.services.runs,
      shards: () => this.shards,
      now: this.#clock.now,
      log,
      wake: (rootUuid) => this.#wakeRoot(rootUuid),
    });
    this.#counts = new OpenRunCounts((orgUuid, most) => options.services.runs.countOpen(orgUuid, most));
    this.#ownership = new Ownership({
      store: options.ownership,
      process: options.process,
      leaseMs: options.leaseMs,
      previousAreDead: options.previousWritersAreDead,
      log,
      clock: this.#clock,
      ...(options.hasWrongClock === undefined ? {} : { hasWrongClock: options.hasWrongClock }),
      onWriter: (writer) => this.#beginWriter(writer),
      onGained: (shards) => this.#gained(shards),
      onLost: (why) => this.#lost(why),
      idleOf: (shards) => this.#roots.idleShards(shards),
      onGiveUp: (shards) => this.#giveUp(shards),
    });
  }

  /** Aborts when the engine stops: streams end, so that clients resume elsewhere. */
  get stopping(): AbortSignal {
    return this.#stopping.signal;
  }

  get status(): EngineStatus {
    const committer = this.#committer?.status ?? { queued: 0, unrelayed: 0, batches: 0 };
    return {
      ...committer,
      writer: this.#ownership.tenure?.writer,
      shards: this.#ownership.tenure?.shards.size ?? 0,
      sessions: this.#roots.size,
      readers: this.feed.size,
    };
  }

  /** Whether the process has a writer, and thus can take part. */
  get owning(): boolean {
    return this.#ownership.tenure !== undefined;
  }

  /** The shards of the process. */
  get shards(): readonly number[] {
    return [...(this.#ownership.tenure?.shards.keys() ?? [])];
  }

  /** The database's clock, in milliseconds since the epoch. */
  get now(): () => number {
    return this.#clock.now;
  }

  /** Has something start and stop with the engine. Call it before `start`. */
  accompany(companion: Companion): void {
    this.#companions.push(companion);
  }

  /** Calls `listener` after each batch that was stored. */
  onStored(listener: () => void): void {
    this.#onStored = listener;
  }

  /** The relay of this writer tells how much is left. */
  setUnrelayed(entries: number): void {
    this.#committer?.setUnrelayed(entries);
  }

  /** Begins to own and to run. PostgreSQL may be absent; it is waited for. */
  async start(): Promise<void> {
    const { notifications, services } = this.#options;
    const listen = async (channel: string, onNotify: (payload: string) => void, onConnect: () => void) => {
      this.#unlisten.push(await notifications.listen(channel, onNotify, onConnect));
    };
    await listen(
      "orchestrator_commit",
      (note) => this.#committedElsewhere(note),
      () => {
        this.feed.wakeAll();
        this.#inbox.lookAgain();
      },
    );
    await listen(
      inboxChannel,
      () => void this.#inbox.read(),
      () => void this.#inbox.read(),
    );
    await listen(
      "orchestrator_shards",
      () => void this.#ownership.tick(),
      () => undefined,
    );
    await this.#ownership.start();
    for (const companion of this.#companions) await companion.start();
    this.#sweep = setInterval(() => {
      this.#roots.dropIdle();
      // Notifications are a shortcut: nothing waits for ever because one got lost.
      void this.#inbox.read();
      this.#inbox.lookAgain();
    }, sweepMs);
    services.log.debug({}, "the engine runs");
  }

  /** Stops: turns are cut off where they are and go on elsewhere, or at the next start. */
  async stop(): Promise<void> {
    if (this.#stopping.signal.aborted) return;
    this.#stopping.abort();
    clearInterval(this.#sweep);
    for (const unlisten of this.#unlisten) await unlisten();
    await Promise.all([this.#waker.stop(), ...this.#companions.map((companion) => companion.stop())]);
    const committer = this.#committer;
    // A store that does not answer must not keep the process: what is not stored by then goes on elsewhere.
    const late = setTimeout(() => committer?.fence(), stopWaitMs);
    await this.#roots.closeAll();
    await committer?.drain();
    clearTimeout(late);
    await this.#ownership.stop();
    committer?.fence();
    this.#inbox.lookAgain();
  }

  /**
   * Has a command executed by the owner of its root, wherever that is. A root
   * of another org than the command's principal is not found.
   *
   * @param rootId of a session or of a root run
   * @throws AppError why it was refused; DEADLINE_EXCEEDED or CANCELLED with the signal, although it may still be executed
   */
  async dispatch(rootId: string, command: Command, signal: AbortSignal): Promise<CommandReply> {
    const kind = kindOf(command);
    const rootUuid = toUuid(kind === "session" ? "ses" : "run", rootId);
    const orgUuid = toUuid("org", command.principal?.orgId ?? "");
    for (let tries = 0; tries < maxTries; tries += 1) {
      if (this.#stopping.signal.aborted) throw new AppError("SHUTTING_DOWN", "the process is shutting down");
      const actor = await untilAborted(this.#roots.get(rootUuid, kind), signal);
      if (actor === "elsewhere") break;
      if (actor?.orgUuid !== orgUuid) throw notFound(kind);
      try {
        const reply = await untilAborted(actor.execute(command), signal);
        if (reply !== undefined) return reply;
      } catch (error) {
        // It moved while the command was executed, and nothing of it is stored.
        if (!(error instanceof AppError) || error.reason !== "FENCED") throw error;
      }
    }
    const { sessions, runs } = this.#options.services;
    const known = kind === "session" ? await sessions.find(orgUuid, rootUuid) : await runs.locate(orgUuid, rootUuid);
    if (known === undefined) throw notFound(kind);
    return await this.#inbox.send(orgUuid, rootUuid, command, signal);
  }

  /**
   * Starts a run of a graph, in a shard that this process owns. The same key
   * again gives the run that it started.
   *
   * @throws AppError what `prepareRun` throws; LIMIT_EXCEEDED, BACKPRESSURE, UNAVAILABLE while no shard is owned or
   * shards move without end
   */
  async startRun(start: RunStart, signal: AbortSignal): Promise<CommandReply> {
    const { answers } = this.#options.services;
    const before = start.idempotency === undefined ? undefined : await findAnswer(answers, start.idempotency);
    if (before !== undefined) return before;
    const orgUuid = toUuid("org", start.principal.orgId);
    await this.#assertOpenRuns(start.principal.orgId, orgUuid);
    const waiting = AbortSignal.timeout(placeWaitMs);
    for (let moved = 0; moved < maxTries; ) {
      if (this.#stopping.signal.aborted) throw new AppError("SHUTTING_DOWN", "the process is shutting down");
      const committer = this.#committer;
      const place = this.#placeForRun();
      if (committer === undefined || place === undefined) {
        await this.#untilGained(AbortSignal.any([signal, waiting]));
        continue;
      }
      committer.assertRoom();
      const { accepted, bodies, reply, answered } = await prepareRun(this.#options.pins, start, place.runId, signal);
      if (this.#committer !== committer) continue;
      const actor = this.#roots.addRun(committer, place.epoch, {
        rootId: place.runUuid,
        orgId: orgUuid,
        shard: shardOf(place.runUuid),
        open: [],
        damaged: [],
      });
      this.#counts.started(orgUuid);
      try {
        await actor.start(accepted, bodies, answered === undefined ? {} : { answered });
        return reply;
      } catch (error) {
        void this.#roots.close(place.runUuid, actor);
        // The shard moved, and nothing is stored: another one of this process is as good.
        if (error instanceof AppError && error.reason === "FENCED") {
          moved += 1;
          continue;
        }
        // Somebody with the same key was faster.
        const taken = error instanceof AppError && error.reason === "IDEMPOTENCY_IN_PROGRESS";
        const stored =
          taken && start.idempotency !== undefined ? await findAnswer(answers, start.idempotency) : undefined;
        if (stored !== undefined) return stored;
        throw error;
      }
    }
    throw new AppError("UNAVAILABLE", "the shards of this process move", { retryAfterMs: 500 });
  }

  /**
   * Waits for the end of a root run that this process runs, or for the signal.
   * Undefined if it does not run it: read its row, and follow the feed.
   */
  whenEnded(runUuid: string, signal: AbortSignal): Promise<EndedRun | undefined> | undefined {
    return this.#ends.wait(runUuid, this.#roots.has(runUuid), signal);
  }

  /** A process that has just joined gets its shards when others have given them up. */
  async #untilGained(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#whenGained.add(resolve);
    try {
      await untilAborted(promise, AbortSignal.any([signal, this.stopping]));
    } catch (cause) {
      if (this.stopping.aborted) throw new AppError("SHUTTING_DOWN", "the process is shutting down");
      throw new AppError("UNAVAILABLE", "the process owns nothing yet", { cause, retryAfterMs: 500 });
    } finally {
      this.#whenGained.delete(resolve);
    }
  }

  async #assertOpenRuns(orgId: string, orgUuid: string): Promise<void> {
    const most = await this.#options.services.limits.get(orgId, "open_runs");
    const open = await this.#counts.open(orgUuid, most);
    if (open >= most) throw limitExceeded(orgUuid, "open_runs", most);
  }

  /** An id for a new root run, whose shard is ours. */
  #placeForRun(): { readonly runId: string; readonly runUuid: string; readonly epoch: bigint } | undefined {
    if ((this.#ownership.tenure?.shards.size ?? 0) === 0) return undefined;
    for (;;) {
      const runId = newId("run");
      const runUuid = toUuid("run", runId);
      const epoch = this.#ownership.epochOf(shardOf(runUuid));
      if (epoch !== undefined) return { runId, runUuid, epoch };
    }
  }

  #beginWriter(writer: bigint): void {
    const { services, append, maxQueuedChanges, maxUnrelayedEntries, onBackpressure } = this.#options;
    this.#committer = new Committer({
      store: append,
      writer,
      alone: this.#options.alone,
      log: services.log,
      onStored: (rootUuid, events, runUuids) => {
        if (events.length > 0) this.feed.publish(rootUuid, events);
        for (const runUuid of runUuids) this.feed.wake(runUuid);
      },
      onBatch: () => {
        this.#onStored();
        // Nothing notifies of what is stored where nobody else can be.
        if (this.#options.alone) this.#inbox.lookAgain();
      },
      onFenced: () => this.#ownership.lost("fenced"),
      renewLease: () => this.#ownership.tick(),
      ...(maxQueuedChanges === undefined ? {} : { maxQueuedChanges }),
      ...(maxUnrelayedEntries === undefined ? {} : { maxUnrelayedEntries }),
      ...(onBackpressure === undefined ? {} : { onBackpressure }),
    });
  }

  #gained(shards: ReadonlyMap<number, bigint>): void {
    for (const resolve of this.#whenGained) resolve();
    void this.#roots.resume([...shards.keys()], this.#committer);
    void this.#inbox.read();
    void this.#waker.look();
    for (const companion of this.#companions) companion.onShards();
  }

  async #wakeRoot(rootUuid: string): Promise<void> {
    try {
      const actor = await this.#roots.get(rootUuid, "run");
      if (actor !== "elsewhere" && actor?.kind === "run") actor.wake();
    } catch (error) {
      this.#options.services.log.warn({ err: error, rootUuid }, "a run that is due cannot be loaded yet");
    }
  }

  #lost(why: LossReason): void {
    this.#options.services.log.warn({ why }, "the shards are lost");
    this.#committer?.fence();
    this.#committer = undefined;
    void this.#roots.closeAll();
  }

  async #giveUp(shards: readonly number[]): Promise<void> {
    await this.#roots.giveUp(shards);
    await this.#committer?.drain();
  }

  async #executeWaiting(rootUuid: string, command: Command, commandId: string): Promise<void> {
    const actor = await this.#roots.get(rootUuid, kindOf(command));
    // A root that is gone: its command is removed with the answered ones, after its caller gave up.
    if (actor === undefined || actor === "elsewhere") return;
    // Not waited for: one root's command must not hold up another's.
    void actor.execute(command, commandId).catch((error: unknown) => {
      if (!(error instanceof AppError)) this.#options.services.log.error({ err: error }, "a command failed");
    });
  }

  /** Another process committed: its readers here look, and callers whose commands it answered. */
  #committedElsewhere(note: string): void {
    const [writer, ...names] = note.split(",");
    if (writer === String(this.#ownership.tenure?.writer)) {
      // Readers of this process were told directly; only callers of the inbox were not.
      for (const name of names) if (name.startsWith("!")) this.#inbox.answered(name.slice(1));
      return;
    }
    if (names.includes(everySession)) {
      this.feed.wakeAll();
      this.#inbox.lookAgain();
      return;
    }
    const told = new Set(names);
    for (const sessionUuid of [...this.feed.sessions()]) {
      if (told.has(noteOf(sessionUuid))) this.feed.wake(sessionUuid);
    }
    for (const name of names) if (name.startsWith("!")) this.#inbox.answered(name.slice(1));
  }
}

/** What kind of root a command is for. */
function kindOf({ request }: Command): RootKind {
  switch (request.case) {
    case "sendTurn":
    case "cancelTurn":
    case "deleteSession":
      return "session";
    default:
      return "run";
  }
}

function notFound(kind: RootKind): AppError {
  return kind === "session"
    ? new AppError("SESSION_NOT_FOUND", "no such session")
    : new AppError("RUN_NOT_FOUND", "no such run");
}
