/**
 * The roots that this process runs: sessions, and runs without one, each by its
 * actor. Invariants:
 *
 * 1. An actor exists only for a root whose shard is owned, at the epoch at
 *    which it is owned; what it writes is refused by the store otherwise.
 * 2. A root in which something is under way has an actor soon after its shard
 *    came; the others get one when they are needed or due, and lose it when idle.
 * 3. A root has one actor at a time: the next one waits until the last is gone.
 */
import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "../../runtime/errors/app-error.ts";
import { shardOf } from "../domain/shard.ts";
import type { Committer } from "../store/committer.ts";
import type { RootState } from "../store/run-store.ts";
import { RunActor, type RunActorServices } from "./graph/run-actor.ts";
import type { EndedRun } from "./graph/run-ends.ts";
import { type ActorServices, SessionActor } from "./session-actor.ts";

/** The owner of a root. */
export type Actor = SessionActor | RunActor;
export type RootKind = Actor["kind"];

export interface RootsOptions {
  readonly sessionServices: ActorServices;
  readonly runServices: RunActorServices;
  /** What writes for this process now; undefined while it owns nothing. */
  readonly committer: () => Committer | undefined;
  /** The epoch of a shard that is owned; undefined for another one. */
  readonly epochOf: (shard: number) => bigint | undefined;
  /** Aborts when the engine stops. */
  readonly stopping: AbortSignal;
  /** Told when something will be due. */
  readonly onWake: (atMs: number) => void;
  /** A run ended. */
  readonly onEnded: (root: { readonly rootId: string; readonly orgId: string }, runUuid: string, run: EndedRun) => void;
  /** A session is gone. */
  readonly onDeleted: (sessionUuid: string) => void;
}

const idleActorMs = 60_000;
/** How many roots are loaded at once when shards come. */
const loadsAtOnce = 8;
/** How long a root that cannot go on rests before it is read anew, in milliseconds. */
const reviveMs = 500;
/** A root whose load failed is tried again that often, in milliseconds. */
const reloadMs = 2_000;

/** Loads, keeps and drops actors. */
export class Roots {
  readonly #options: RootsOptions;
  readonly #actors = new Map<string, Actor>();
  readonly #loading = new Map<string, Promise<Actor | undefined>>();
  readonly #closing = new Map<string, Promise<void>>();

  constructor(options: RootsOptions) {
    this.#options = options;
  }

  /** How many have an actor. */
  get size(): number {
    return this.#actors.size;
  }

  /** Whether a root has an actor. */
  has(rootUuid: string): boolean {
    return this.#actors.has(rootUuid);
  }

  /** The actor of a root, loaded if need be; undefined if there is no such root. */
  async get(rootUuid: string, kind: RootKind): Promise<Actor | "elsewhere" | undefined> {
    const { epochOf } = this.#options;
    const known = this.#actors.get(rootUuid);
    if (known !== undefined) return known;
    if (epochOf(shardOf(rootUuid)) === undefined) return "elsewhere";
    let loading = this.#loading.get(rootUuid);
    if (loading === undefined) {
      loading = (kind === "session" ? this.#loadSession(rootUuid) : this.#loadRun(rootUuid)).finally(() =>
        this.#loading.delete(rootUuid),
      );
      this.#loading.set(rootUuid, loading);
    }
    const actor = await loading;
    if (actor !== undefined) return actor;
    return epochOf(shardOf(rootUuid)) === undefined ? "elsewhere" : undefined;
  }

  /** Makes the actor of a root run that is not stored yet. */
  addRun(committer: Committer, epoch: bigint, state: RootState): RunActor {
    const { runServices, onWake, onEnded } = this.#options;
    const actor: RunActor = new RunActor({
      services: runServices,
      committer,
      epoch,
      state,
      onWake,
      onBroken: () => void this.#revive(state.rootId, actor),
      onQuiet: () => {
        // Whatever it waits for finds it in the store.
        if (this.#actors.get(state.rootId) === actor && !this.#loading.has(state.rootId))
          void this.close(state.rootId, actor);
      },
      onEnded: (runUuid, ended) => onEnded(state, runUuid, ended),
    });
    this.#actors.set(state.rootId, actor);
    return actor;
  }

  /** 2: loads the roots of shards in which something is under way; until that is done, or `committer` writes no more. */
  async resume(shards: readonly number[], committer: Committer | undefined): Promise<void> {
    const { sessionServices, runServices, stopping, epochOf } = this.#options;
    const { log } = runServices;
    for (;;) {
      if (this.#options.committer() !== committer || stopping.aborted) return;
      try {
        const owned = shards.filter((shard) => epochOf(shard) !== undefined);
        const open: { readonly uuid: string; readonly kind: RootKind }[] = [];
        for (const uuid of await sessionServices.sessions.listOpen(owned)) open.push({ uuid, kind: "session" });
        for (const uuid of await runServices.runs.listRunning(owned)) open.push({ uuid, kind: "run" });
        const failed: string[] = [];
        const load = async (): Promise<void> => {
          for (let root = open.pop(); root !== undefined; root = open.pop()) {
            try {
              await this.get(root.uuid, root.kind);
            } catch (error) {
              log.error({ err: error, rootUuid: root.uuid }, "an open root cannot be loaded");
              if (error instanceof AppError && error.reason === "UNAVAILABLE") failed.push(root.uuid);
            }
          }
        };
        await Promise.all(Array.from({ length: loadsAtOnce }, load));
        if (failed.length === 0) return;
      } catch (error) {
        log.warn({ err: error }, "open roots cannot be listed yet");
      }
      await delay(reloadMs, undefined, { ref: false });
    }
  }

  /** Those of the shards in which nothing is under way here. */
  idleShards(shards: readonly number[]): readonly number[] {
    const busy = new Set<number>();
    for (const [rootUuid, actor] of this.#actors) if (!actor.idle) busy.add(shardOf(rootUuid));
    for (const rootUuid of this.#loading.keys()) busy.add(shardOf(rootUuid));
    return shards.filter((shard) => !busy.has(shard));
  }

  /** Drops the actors of shards, and those that are being loaded. */
  async giveUp(shards: readonly number[]): Promise<void> {
    const given = new Set(shards);
    const loading = [...this.#loading].filter(([rootUuid]) => given.has(shardOf(rootUuid)));
    await Promise.allSettled(loading.map(([, load]) => load));
    await this.#closeAll([...this.#actors.keys()].filter((rootUuid) => given.has(shardOf(rootUuid))));
  }

  /** Drops all actors. */
  async closeAll(): Promise<void> {
    await this.#closeAll([...this.#actors.keys()]);
  }

  /** Drops what was not needed for a minute. */
  dropIdle(): void {
    const before = performance.now() - idleActorMs;
    for (const [rootUuid, actor] of this.#actors) {
      if (actor.idle && actor.usedMs < before) void this.close(rootUuid, actor);
    }
  }

  /** Drops an actor. */
  close(rootUuid: string, actor: Actor): Promise<void> {
    if (this.#actors.get(rootUuid) === actor) this.#actors.delete(rootUuid);
    const closing = actor.close().finally(() => {
      if (this.#closing.get(rootUuid) === closing) this.#closing.delete(rootUuid);
    });
    this.#closing.set(rootUuid, closing);
    return closing;
  }

  async #closeAll(rootUuids: readonly string[]): Promise<void> {
    await Promise.all(
      rootUuids.map(async (rootUuid) => {
        const actor = this.#actors.get(rootUuid);
        await (actor === undefined ? this.#closing.get(rootUuid) : this.close(rootUuid, actor));
      }),
    );
  }

  async #loadSession(sessionUuid: string): Promise<SessionActor | undefined> {
    const { sessionServices, onDeleted } = this.#options;
    await this.#closing.get(sessionUuid); // 3
    const place = this.#placeOf(sessionUuid);
    if (place === undefined) return undefined;
    const { committer, epoch } = place;
    const state = await sessionServices.sessions.load(sessionUuid);
    if (state === undefined || !this.#isStillOurs(committer, state.session.shard, epoch)) return undefined;
    const actor: SessionActor = new SessionActor({
      services: sessionServices,
      committer,
      epoch,
      state,
      onBroken: () => void this.#revive(sessionUuid, actor),
      onDeleted: () => {
        onDeleted(sessionUuid);
        void this.close(sessionUuid, actor);
      },
    });
    this.#actors.set(sessionUuid, actor);
    await this.#begin(sessionUuid, actor, committer);
    return actor;
  }

  async #loadRun(rootUuid: string): Promise<RunActor | undefined> {
    await this.#closing.get(rootUuid); // 3
    const place = this.#placeOf(rootUuid);
    if (place === undefined) return undefined;
    const { committer, epoch } = place;
    const state = await this.#options.runServices.runs.load(rootUuid);
    if (state === undefined || !this.#isStillOurs(committer, state.shard, epoch)) return undefined;
    const actor = this.addRun(committer, epoch, state);
    await this.#begin(rootUuid, actor, committer);
    return actor;
  }

  async #begin(rootUuid: string, actor: Actor, committer: Committer): Promise<void> {
    try {
      await actor.resume(committer.writer);
    } catch (error) {
      // Only a part of it goes on: who tries again begins anew.
      await this.close(rootUuid, actor);
      throw error;
    }
  }

  #placeOf(rootUuid: string): { readonly committer: Committer; readonly epoch: bigint } | undefined {
    const committer = this.#options.committer();
    const epoch = this.#options.epochOf(shardOf(rootUuid));
    return committer === undefined || epoch === undefined ? undefined : { committer, epoch };
  }

  /** 1: it may have moved while it was read. */
  #isStillOurs(committer: Committer, shard: number, epoch: bigint): boolean {
    const { stopping, epochOf } = this.#options;
    return this.#options.committer() === committer && epochOf(shard) === epoch && !stopping.aborted;
  }

  /** Drops an actor that cannot go on, and reads its root anew if it is still ours. */
  async #revive(rootUuid: string, actor: Actor): Promise<void> {
    await this.close(rootUuid, actor);
    // Whatever broke it may break it again: not as fast as the machine can.
    await delay(reviveMs, undefined, { ref: false });
    if (this.#options.stopping.aborted) return;
    try {
      await this.get(rootUuid, actor.kind);
    } catch (error) {
      this.#options.runServices.log.error({ err: error, rootUuid }, "a session or run cannot be read anew");
    }
  }
}
