/**
 * The orchestrator's engine in one process: which roots it owns (sessions, and
 * runs without one), their actors, and how commands find the owner. Invariants:
 *
 * 1. An actor exists only for a root whose shard is owned, at the epoch at
 *    which it is owned; what it writes is refused by the store otherwise.
 * 2. A root in which something is under way has an actor soon after its shard
 *    came; the others get one when they are needed or due, and lose it when idle.
 * 3. A command is answered by the owner or stays in the inbox; the process that
 *    took it never answers in the owner's place.
 */
import { setTimeout as delay } from "node:timers/promises";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Command, type CommandReply, CommandSchema } from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { limitExceeded } from "../domain/limit.ts";
import { shardOf } from "../domain/shard.ts";
import type { AppendStore } from "../store/append-store.ts";
import { Committer, type CommitterStatus } from "../store/committer.ts";
import { type InboxStore, inboxChannel } from "../store/inbox-store.ts";
import type { OwnershipStore } from "../store/ownership-store.ts";
import { everySession, noteOf } from "../store/postgres-append-store.ts";
import type { RootState } from "../store/run-store.ts";
import { decodeReply } from "./command-reply.ts";
import { DatabaseClock } from "./database-clock.ts";
import { EventFeed } from "./event-feed.ts";
import { OpenRunCounts } from "./graph/open-run-counts.ts";
import { prepareRun, type RunStart } from "./graph/prepare-run.ts";
import type { PinSources } from "./graph/resolve-pins.ts";
import { RunActor, type RunActorServices } from "./graph/run-actor.ts";
import { type EndedRun, RunEnds } from "./graph/run-ends.ts";
import { findAnswer } from "./idempotency.ts";
import { Ownership } from "./ownership.ts";
import { type ActorServices, SessionActor } from "./session-actor.ts";
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
  /** Whether no other process can be there, to hear of what is stored. */
  readonly alone: boolean;
  readonly maxQueuedChanges?: number;
  readonly maxUnrelayedEntries?: number;
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

type Actor = SessionActor | RunActor;
type RootKind = Actor["kind"];

/** How long a stop waits for changes to be stored, in milliseconds. */
const stopWaitMs = 5_000;
const inboxPage = 256;
const sweepMs = 5_000;
const idleActorMs = 60_000;
/** How many sessions are loaded at once when shards come. */
const loadsAtOnce = 8;
/** How long a session that cannot go on rests before it is read anew, in milliseconds. */
const reviveMs = 500;
/** A session whose load failed is tried again that often, in milliseconds. */
const reloadMs = 2_000;

/** Runs sessions. */
export class Engine {
  readonly feed = new EventFeed();
  readonly #options: EngineOptions;
  readonly #services: ActorServices;
  readonly #runServices: RunActorServices;
  readonly #ownership: Ownership;
  readonly #clock = new DatabaseClock();
  readonly #waker: Waker;
  readonly #actors = new Map<string, Actor>();
  readonly #loading = new Map<string, Promise<Actor | undefined>>();
  readonly #closing = new Map<string, Promise<void>>();
  readonly #replies = new Map<string, Set<() => void>>();
  readonly #stopping = new AbortController();
  readonly #counts: OpenRunCounts;
  readonly #ends = new RunEnds();
  #committer: Committer | undefined;
  #unlisten: (() => Promise<void>)[] = [];
  #sweep: NodeJS.Timeout | undefined;
  #readingInbox: Promise<void> | undefined;
  #inboxAgain = false;
  readonly #companions: Companion[] = [];
  #onStored: () => void = () => undefined;

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#services = { ...options.services, accepting: new Map() };
    this.#runServices = { ...options.services, now: this.#clock.now };
    this.#waker = new Waker({
      runs: options.services.runs,
      shards: () => [...(this.#ownership.tenure?.shards.keys() ?? [])],
      now: this.#clock.now,
      log: options.services.log,
      wake: (rootUuid) => this.#wakeRoot(rootUuid),
    });
    this.#counts = new OpenRunCounts((orgUuid, most) => options.services.runs.countOpen(orgUuid, most));
    this.#ownership = new Ownership({
      store: options.ownership,
      process: options.process,
      leaseMs: options.leaseMs,
      previousAreDead: options.previousWritersAreDead,
      log: options.services.log,
      clock: this.#clock,
      onWriter: (writer) => this.#beginWriter(writer),
      onGained: (shards) => this.#gained(shards),
      onLost: (why) => this.#lost(why),
      idleOf: (shards) => this.#idleOf(shards),
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
      sessions: this.#actors.size,
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
        this.#wakeReplies();
      },
    );
    await listen(
      inboxChannel,
      () => void this.#readInbox(),
      () => void this.#readInbox(),
    );
    await listen(
      "orchestrator_shards",
      () => void this.#ownership.tick(),
      () => undefined,
    );
    await this.#ownership.start();
    for (const companion of this.#companions) await companion.start();
    this.#sweep = setInterval(() => {
      this.#dropIdle();
      // Notifications are a shortcut: nothing waits for ever because one got lost.
      void this.#readInbox();
      this.#wakeReplies();
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
    await this.#closeActors([...this.#actors.keys()]);
    await committer?.drain();
    clearTimeout(late);
    await this.#ownership.stop();
    committer?.fence();
    this.#wakeReplies();
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
    for (let tries = 0; tries < 3; tries += 1) {
      if (this.#stopping.signal.aborted) throw new AppError("SHUTTING_DOWN", "the process is shutting down");
      const actor = await untilAborted(this.#actorOf(rootUuid, kind), signal);
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
    return await this.#viaInbox(orgUuid, rootUuid, command, signal);
  }

  /**
   * Starts a run of a graph, in a shard that this process owns. The same key
   * again gives the run that it started.
   *
   * @throws AppError what `prepareRun` throws; LIMIT_EXCEEDED, BACKPRESSURE, UNAVAILABLE while no shard is owned
   */
  async startRun(start: RunStart, signal: AbortSignal): Promise<CommandReply> {
    const { answers } = this.#options.services;
    const before = start.idempotency === undefined ? undefined : await findAnswer(answers, start.idempotency);
    if (before !== undefined) return before;
    const orgUuid = toUuid("org", start.principal.orgId);
    await this.#assertOpenRuns(start.principal.orgId, orgUuid);
    for (;;) {
      if (this.#stopping.signal.aborted) throw new AppError("SHUTTING_DOWN", "the process is shutting down");
      const committer = this.#committer;
      const place = this.#placeForRun();
      if (committer === undefined || place === undefined) {
        throw new AppError("UNAVAILABLE", "the process owns nothing yet", { retryAfterMs: 500 });
      }
      committer.assertRoom();
      const { accepted, bodies, reply, answered } = await prepareRun(this.#options.pins, start, place.runId, signal);
      if (this.#committer !== committer) continue;
      const actor = this.#runActor(committer, place.epoch, {
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
        void this.#close(place.runUuid, actor);
        // Somebody with the same key was faster.
        const taken = error instanceof AppError && error.reason === "IDEMPOTENCY_IN_PROGRESS";
        const stored =
          taken && start.idempotency !== undefined ? await findAnswer(answers, start.idempotency) : undefined;
        if (stored !== undefined) return stored;
        throw error;
      }
    }
  }

  /**
   * Waits for the end of a root run that this process runs, or for the signal.
   * Undefined if it does not run it: read its row, and follow the feed.
   */
  whenEnded(runUuid: string, signal: AbortSignal): Promise<EndedRun | undefined> | undefined {
    return this.#ends.wait(runUuid, this.#actors.has(runUuid), signal);
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

  async #viaInbox(orgUuid: string, rootUuid: string, command: Command, signal: AbortSignal): Promise<CommandReply> {
    const { inbox } = this.#options;
    const commandId = toUuid("req", newId("req"));
    let wake: () => void = () => undefined;
    const note = noteOf(commandId);
    const woken = (): void => wake();
    const waiters = this.#replies.get(note) ?? new Set();
    waiters.add(woken);
    this.#replies.set(note, waiters);
    try {
      await inbox.put(orgUuid, { commandId, rootId: rootUuid, body: toBinary(CommandSchema, command) });
      // The owner may be this process by now, or nobody yet.
      void this.#readInbox();
      for (;;) {
        const told = new Promise<void>((resolve) => {
          wake = resolve;
        });
        const reply = await inbox.reply(commandId);
        if (reply !== undefined) return decodeReply(reply);
        if (this.#stopping.signal.aborted) throw new AppError("SHUTTING_DOWN", "the process is shutting down");
        await untilAborted(told, signal);
      }
    } finally {
      waiters.delete(woken);
      if (waiters.size === 0) this.#replies.delete(note);
    }
  }

  #beginWriter(writer: bigint): void {
    const { services, append, maxQueuedChanges, maxUnrelayedEntries } = this.#options;
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
        if (this.#options.alone) this.#wakeReplies();
      },
      onFenced: () => this.#ownership.lost("fenced"),
      renewLease: () => this.#ownership.tick(),
      ...(maxQueuedChanges === undefined ? {} : { maxQueuedChanges }),
      ...(maxUnrelayedEntries === undefined ? {} : { maxUnrelayedEntries }),
    });
  }

  #gained(shards: ReadonlyMap<number, bigint>): void {
    const committer = this.#committer;
    void this.#resume([...shards.keys()], committer);
    void this.#readInbox();
    void this.#waker.look();
    for (const companion of this.#companions) companion.onShards();
  }

  async #wakeRoot(rootUuid: string): Promise<void> {
    try {
      const actor = await this.#actorOf(rootUuid, "run");
      if (actor !== "elsewhere" && actor?.kind === "run") actor.wake();
    } catch (error) {
      this.#options.services.log.warn({ err: error, rootUuid }, "a run that is due cannot be loaded yet");
    }
  }

  /** 2: goes on with the runs that are open in shards that came. */
  async #resume(shards: readonly number[], committer: Committer | undefined): Promise<void> {
    const { services } = this.#options;
    for (;;) {
      if (this.#committer !== committer || this.#stopping.signal.aborted) return;
      try {
        const owned = shards.filter((shard) => this.#ownership.epochOf(shard) !== undefined);
        const open: { readonly uuid: string; readonly kind: RootKind }[] = [];
        for (const uuid of await services.sessions.listOpen(owned)) open.push({ uuid, kind: "session" });
        for (const uuid of await services.runs.listRunning(owned)) open.push({ uuid, kind: "run" });
        const failed: string[] = [];
        const load = async (): Promise<void> => {
          for (let root = open.pop(); root !== undefined; root = open.pop()) {
            try {
              await this.#actorOf(root.uuid, root.kind);
            } catch (error) {
              services.log.error({ err: error, rootUuid: root.uuid }, "an open run cannot be loaded");
              if (error instanceof AppError && error.reason === "UNAVAILABLE") failed.push(root.uuid);
            }
          }
        };
        await Promise.all(Array.from({ length: loadsAtOnce }, load));
        if (failed.length === 0) return;
      } catch (error) {
        services.log.warn({ err: error }, "open runs cannot be listed yet");
      }
      await new Promise((resolve) => setTimeout(resolve, reloadMs).unref());
    }
  }

  #lost(why: "fenced" | "expired"): void {
    this.#options.services.log.warn({ why }, "the shards are lost");
    this.#committer?.fence();
    this.#committer = undefined;
    void this.#closeActors([...this.#actors.keys()]);
  }

  #idleOf(shards: readonly number[]): readonly number[] {
    const busy = new Set<number>();
    for (const actor of this.#actors.values()) if (!actor.idle) busy.add(shardOf(rootUuidOf(actor)));
    for (const sessionUuid of this.#loading.keys()) busy.add(shardOf(sessionUuid));
    return shards.filter((shard) => !busy.has(shard));
  }

  async #giveUp(shards: readonly number[]): Promise<void> {
    const given = new Set(shards);
    const sessions = [...this.#actors.keys()].filter((sessionUuid) => given.has(shardOf(sessionUuid)));
    await Promise.all(
      [...this.#loading].filter(([sessionUuid]) => given.has(shardOf(sessionUuid))).map(([, loading]) => loading),
    );
    await this.#closeActors(sessions);
    await this.#committer?.drain();
  }

  async #closeActors(sessions: readonly string[]): Promise<void> {
    await Promise.all(
      sessions.map(async (sessionUuid) => {
        const actor = this.#actors.get(sessionUuid);
        await (actor === undefined ? this.#closing.get(sessionUuid) : this.#close(sessionUuid, actor));
      }),
    );
  }

  /** Drops an actor. The next one of the session waits until it is gone. */
  #close(sessionUuid: string, actor: Actor): Promise<void> {
    if (this.#actors.get(sessionUuid) === actor) this.#actors.delete(sessionUuid);
    const closing = actor.close().finally(() => {
      if (this.#closing.get(sessionUuid) === closing) this.#closing.delete(sessionUuid);
    });
    this.#closing.set(sessionUuid, closing);
    return closing;
  }

  async #actorOf(rootUuid: string, kind: RootKind): Promise<Actor | "elsewhere" | undefined> {
    const known = this.#actors.get(rootUuid);
    if (known !== undefined) return known;
    if (this.#ownership.epochOf(shardOf(rootUuid)) === undefined) return "elsewhere";
    let loading = this.#loading.get(rootUuid);
    if (loading === undefined) {
      loading = (kind === "session" ? this.#loadSession(rootUuid) : this.#loadRun(rootUuid)).finally(() =>
        this.#loading.delete(rootUuid),
      );
      this.#loading.set(rootUuid, loading);
    }
    const actor = await loading;
    if (actor !== undefined) return actor;
    return this.#ownership.epochOf(shardOf(rootUuid)) === undefined ? "elsewhere" : undefined;
  }

  async #loadSession(sessionUuid: string): Promise<SessionActor | undefined> {
    await this.#closing.get(sessionUuid);
    const committer = this.#committer;
    const epoch = this.#ownership.epochOf(shardOf(sessionUuid));
    if (committer === undefined || epoch === undefined) return undefined;
    const state = await this.#services.sessions.load(sessionUuid);
    if (state === undefined || !this.#isStillOurs(committer, state.session.shard, epoch)) return undefined;
    const actor: SessionActor = new SessionActor({
      services: this.#services,
      committer,
      epoch,
      state,
      onBroken: () => void this.#revive(sessionUuid, actor),
      onDeleted: () => {
        this.feed.wake(sessionUuid);
        void this.#close(sessionUuid, actor);
      },
    });
    this.#actors.set(sessionUuid, actor);
    try {
      await actor.resume(committer.writer);
    } catch (error) {
      await this.#close(sessionUuid, actor);
      throw error;
    }
    return actor;
  }

  async #loadRun(rootUuid: string): Promise<RunActor | undefined> {
    await this.#closing.get(rootUuid);
    const committer = this.#committer;
    const epoch = this.#ownership.epochOf(shardOf(rootUuid));
    if (committer === undefined || epoch === undefined) return undefined;
    const state = await this.#runServices.runs.load(rootUuid);
    if (state === undefined || !this.#isStillOurs(committer, state.shard, epoch)) return undefined;
    const actor = this.#runActor(committer, epoch, state);
    try {
      await actor.resume(committer.writer);
    } catch (error) {
      // Only a part of it goes on: who tries again begins anew.
      await this.#close(rootUuid, actor);
      throw error;
    }
    return actor;
  }

  /** 1: it may have moved while it was read. */
  #isStillOurs(committer: Committer, shard: number, epoch: bigint): boolean {
    return this.#committer === committer && this.#ownership.epochOf(shard) === epoch && !this.#stopping.signal.aborted;
  }

  #runActor(committer: Committer, epoch: bigint, state: RootState): RunActor {
    const actor: RunActor = new RunActor({
      services: this.#runServices,
      committer,
      epoch,
      state,
      onWake: (atMs) => this.#waker.at(atMs),
      onBroken: () => void this.#revive(state.rootId, actor),
      onQuiet: () => {
        // Whatever it waits for finds it in the store.
        if (this.#actors.get(state.rootId) === actor && !this.#loading.has(state.rootId))
          void this.#close(state.rootId, actor);
      },
      onEnded: (runUuid, ended) => {
        if (runUuid === state.rootId) this.#counts.ended(state.orgId);
        this.#ends.ended(runUuid, ended);
      },
    });
    this.#actors.set(state.rootId, actor);
    return actor;
  }

  /** Drops an actor that cannot go on, and reads its root anew if it is still ours. */
  async #revive(rootUuid: string, actor: Actor): Promise<void> {
    await this.#close(rootUuid, actor);
    // Whatever broke it may break it again: not as fast as the machine can.
    await delay(reviveMs, undefined, { ref: false });
    if (this.#stopping.signal.aborted) return;
    try {
      await this.#actorOf(rootUuid, actor.kind);
    } catch (error) {
      this.#options.services.log.error({ err: error, rootUuid }, "a session or run cannot be read anew");
    }
  }

  #dropIdle(): void {
    const before = performance.now() - idleActorMs;
    for (const [rootUuid, actor] of this.#actors) {
      if (actor.idle && actor.usedMs < before) void this.#close(rootUuid, actor);
    }
  }

  /** Executes what waits in the inbox for the shards that are owned. Calls meanwhile share one more look. */
  #readInbox(): Promise<void> {
    if (this.#readingInbox !== undefined) {
      this.#inboxAgain = true;
      return this.#readingInbox;
    }
    this.#readingInbox = this.#inboxOnce()
      .catch((error: unknown) => {
        this.#options.services.log.warn({ err: error }, "the inbox cannot be read now");
      })
      .finally(() => {
        this.#readingInbox = undefined;
        if (this.#inboxAgain && !this.#stopping.signal.aborted) {
          this.#inboxAgain = false;
          void this.#readInbox();
        }
      });
    return this.#readingInbox;
  }

  async #inboxOnce(): Promise<void> {
    const { inbox, services } = this.#options;
    const shards = [...(this.#ownership.tenure?.shards.keys() ?? [])];
    if (shards.length === 0) return;
    for (const { commandId, rootId, body } of await inbox.waiting(shards, inboxPage)) {
      const command = fromBinary(CommandSchema, body);
      const actor = await this.#actorOf(rootId, kindOf(command));
      // A root that is gone: its command is removed with the answered ones, after its caller gave up.
      if (actor === undefined || actor === "elsewhere") continue;
      // Not waited for: one session's command must not hold up another's.
      void actor.execute(command, commandId).catch((error: unknown) => {
        if (!(error instanceof AppError)) services.log.error({ err: error }, "a command failed");
      });
    }
  }

  /** Another process committed: its readers here look, and callers whose commands it answered. */
  #committedElsewhere(note: string): void {
    const [writer, ...names] = note.split(",");
    if (writer === String(this.#ownership.tenure?.writer)) {
      // Readers of this process were told directly; only callers of the inbox were not.
      for (const name of names) if (name.startsWith("!")) this.#wakeReply(name.slice(1));
      return;
    }
    if (names.includes(everySession)) {
      this.feed.wakeAll();
      this.#wakeReplies();
      return;
    }
    const told = new Set(names);
    for (const sessionUuid of [...this.feed.sessions()]) {
      if (told.has(noteOf(sessionUuid))) this.feed.wake(sessionUuid);
    }
    for (const name of names) if (name.startsWith("!")) this.#wakeReply(name.slice(1));
  }

  #wakeReply(note: string): void {
    for (const wake of this.#replies.get(note) ?? []) wake();
  }

  #wakeReplies(): void {
    for (const note of [...this.#replies.keys()]) this.#wakeReply(note);
  }
}

function rootUuidOf(actor: Actor): string {
  return actor.kind === "session" ? actor.sessionUuid : actor.rootUuid;
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

/** Waits for work, but no longer than the signal lets: the work itself goes on. */
async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => {
      const { reason } = signal;
      reject(reason instanceof AppError ? reason : new AppError("CANCELLED", "the caller gave up", { cause: reason }));
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
