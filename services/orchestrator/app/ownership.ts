/**
 * Which shards this process owns. Invariants:
 *
 * 1. A process writes as one writer at a time; a fenced one is never used again.
 * 2. The lease runs on the database's clock. Between renewals the process counts
 *    on its own monotonic clock from before the renewal was sent, so it stops
 *    on its own no later than others may take over.
 * 3. A shard is given up only after all its changes are stored.
 * 4. A process that peers refuse for its clock owns nothing: its runs would
 *    stand still while another one could go on with them.
 */
import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { OwnershipStore } from "../store/ownership-store.ts";
import type { DatabaseClock } from "./database-clock.ts";

/** A writer and what it owns. */
export interface Tenure {
  readonly writer: bigint;
  /** Epochs by shard. */
  readonly shards: ReadonlyMap<number, bigint>;
}

export interface OwnershipOptions {
  readonly store: OwnershipStore;
  readonly process: string;
  /** How long a dead process keeps its shards, in milliseconds. */
  readonly leaseMs: number;
  /** Whether no other process can write, because this one holds the data directory. */
  readonly previousAreDead: boolean;
  readonly log: Logger;
  /** Set by each renewal. */
  readonly clock: DatabaseClock;
  /** Whether peers refuse what this process sends, because its clock is not theirs. Default: they do not. */
  readonly hasWrongClock?: () => boolean;
  /** A new writer begins, without shards yet. */
  readonly onWriter: (writer: bigint) => void;
  /** Shards came. */
  readonly onGained: (shards: ReadonlyMap<number, bigint>) => void;
  /** The writer is one no more: stop at once. */
  readonly onLost: (why: LossReason) => void;
  /** Which of the shards can be given up now without cutting off a turn. */
  readonly idleOf: (shards: readonly number[]) => readonly number[];
  /** Stops all work on shards, and waits until their changes are stored. */
  readonly onGiveUp: (shards: readonly number[]) => Promise<void>;
}

/** Why a writer is one no more: it was replaced, its lease could not be renewed in time, or its clock is wrong. */
export type LossReason = "fenced" | "expired" | "clock";

type State =
  | { readonly type: "waiting" }
  | {
      readonly type: "owning";
      readonly writer: bigint;
      readonly shards: Map<number, bigint>;
      /** On the monotonic clock. */
      readonly leaseUntilMs: number;
      /** Since when there are more shards than the fair share; undefined if there are not. */
      readonly crowdedSinceMs: number | undefined;
    }
  | { readonly type: "stopped" };

/** A shard with turns that run is given up all the same after this time, in milliseconds. */
const patienceMs = 30_000;
/** How often, and how far apart in milliseconds, the relay is waited for before shards are given up. */
const releaseTries = 20;
const releaseWaitMs = 50;
const purgePortion = 1_000;

/** Keeps a lease and a fair share of the shards. */
export class Ownership {
  readonly #options: OwnershipOptions;
  readonly #renewMs: number;
  #state: State = { type: "waiting" };
  #timer: NodeJS.Timeout | undefined;
  #expiry: NodeJS.Timeout | undefined;
  #ticking: Promise<void> | undefined;
  #again = false;
  #first = true;

  constructor(options: OwnershipOptions) {
    this.#options = options;
    this.#renewMs = Math.max(100, Math.floor(options.leaseMs / 4));
  }

  /** What is owned now; undefined while there is no writer. */
  get tenure(): Tenure | undefined {
    return this.#state.type === "owning" ? this.#state : undefined;
  }

  /** The epoch of a shard that is owned; undefined if it is not. */
  epochOf(shard: number): bigint | undefined {
    return this.#state.type === "owning" ? this.#state.shards.get(shard) : undefined;
  }

  /** Begins, and goes on until `stop`. Resolves after the first try; an absent database is tried again. */
  start(): Promise<void> {
    return this.tick();
  }

  /** Renews and claims now. Calls meanwhile share it, or the one after it. */
  tick(): Promise<void> {
    if (this.#ticking !== undefined) {
      this.#again = true;
      return this.#ticking;
    }
    clearTimeout(this.#timer);
    this.#ticking = this.#tick()
      .catch((error: unknown) => {
        if (error instanceof AppError) this.#options.log.warn({ err: error }, "the lease cannot be renewed yet");
        else this.#options.log.error({ err: error }, "keeping the lease failed");
      })
      .finally(() => {
        this.#ticking = undefined;
        if (this.#state.type === "stopped") return;
        const delayMs = this.#again ? 0 : this.#renewMs;
        this.#again = false;
        this.#timer = setTimeout(() => void this.tick(), delayMs);
      });
    return this.#ticking;
  }

  /** The committer was refused as fenced, or the writer may not go on. */
  lost(why: LossReason): void {
    if (this.#state.type !== "owning") return;
    this.#state = { type: "waiting" };
    clearTimeout(this.#expiry);
    this.#options.onLost(why);
    // Come back as a new writer.
    if (this.#ticking === undefined) void this.tick();
    else this.#again = true;
  }

  /** Gives everything up. Call it when all changes are stored. */
  async stop(): Promise<void> {
    const before = this.#state;
    this.#state = { type: "stopped" };
    clearTimeout(this.#timer);
    clearTimeout(this.#expiry);
    await this.#ticking;
    if (before.type === "owning") {
      try {
        await this.#options.store.retire(before.writer);
      } catch (error) {
        // Its lease ends by itself.
        this.#options.log.warn({ err: error }, "the lease could not be given back");
      }
    }
  }

  async #tick(): Promise<void> {
    const { store, leaseMs } = this.#options;
    if (this.#state.type === "stopped") return;
    if (this.#options.hasWrongClock?.() === true) {
      const before = this.#state;
      this.lost("clock");
      if (before.type === "owning") await store.retire(before.writer);
      return;
    }
    if (this.#state.type === "waiting") {
      const sentMs = performance.now();
      const writer = await store.register(this.#options.process, leaseMs, this.#first && this.#options.previousAreDead);
      // It may have been stopped meanwhile; the row's lease ends by itself.
      if (this.#isStopped()) return;
      this.#first = false;
      this.#state = {
        type: "owning",
        writer,
        shards: new Map(),
        leaseUntilMs: sentMs + leaseMs,
        crowdedSinceMs: undefined,
      };
      this.#options.onWriter(writer);
    }
    const { writer } = this.#state;
    const askedMs = performance.now();
    this.#options.clock.observe(await store.clock(), askedMs, performance.now());
    const sentMs = performance.now();
    const claim = await store.claim(writer, leaseMs);
    if (this.#state.type !== "owning" || this.#state.writer !== writer) return;
    if (claim === undefined) {
      this.lost("fenced");
      return;
    }
    const gained = new Map([...claim.shards].filter(([shard]) => this.#ownedShards().has(shard) === false));
    const crowded = claim.shards.size > claim.fairShare;
    this.#state = {
      type: "owning",
      writer,
      shards: new Map(claim.shards),
      leaseUntilMs: sentMs + leaseMs,
      crowdedSinceMs: crowded ? (this.#state.crowdedSinceMs ?? sentMs) : undefined,
    };
    this.#watchExpiry();
    if (gained.size > 0) {
      this.#options.log.info({ writer: String(writer), shards: claim.shards.size }, "shards are owned");
      this.#options.onGained(gained);
    }
    if (crowded) await this.#giveUp(claim.shards.size - claim.fairShare);
    await store.purge(writer, purgePortion);
  }

  /** 2: stops by itself when the lease ran out unrenewed; unless nobody else can take over. */
  #watchExpiry(): void {
    clearTimeout(this.#expiry);
    if (this.#state.type !== "owning" || this.#options.previousAreDead) return;
    this.#expiry = setTimeout(() => this.lost("expired"), Math.max(0, this.#state.leaseUntilMs - performance.now()));
  }

  async #giveUp(count: number): Promise<void> {
    const state = this.#state;
    if (state.type !== "owning") return;
    const owned = [...state.shards.keys()];
    const idle = this.#options.idleOf(owned);
    const impatient = performance.now() - (state.crowdedSinceMs ?? 0) > patienceMs;
    const given = (impatient ? [...idle, ...owned.filter((shard) => !idle.includes(shard))] : [...idle]).slice(
      0,
      count,
    );
    if (given.length === 0) return;
    for (const shard of given) state.shards.delete(shard);
    await this.#options.onGiveUp(given); // 3
    let kept: readonly number[] = given;
    for (let tries = 0; tries < releaseTries; tries += 1) {
      const released = new Set(await this.#options.store.release(state.writer, kept));
      kept = kept.filter((shard) => !released.has(shard));
      if (kept.length === 0) return;
      await delay(releaseWaitMs);
    }
    // The relay lags: these stay, and the next claim brings them back.
    this.#options.log.info({ shards: kept.length }, "shards are kept until the relay caught up");
  }

  #ownedShards(): ReadonlyMap<number, bigint> {
    return this.#state.type === "owning" ? this.#state.shards : new Map();
  }

  #isStopped(): boolean {
    return this.#state.type === "stopped";
  }
}
