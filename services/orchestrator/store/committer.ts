/**
 * The one way in which a process stores runs, entries and events: what is
 * submitted while a batch is under way makes the next batch. Invariants:
 *
 * 1. One batch at a time, so the writer's numbers have one order.
 * 2. Changes are stored in the order in which they were submitted. Numbers and
 *    hashes are given when the batch is made, from heads that only a stored
 *    batch moves: a refused change leaves no gap.
 * 3. A change is answered after its own commit, never before. What it wrote is
 *    told to the readers before the answer.
 * 4. When a change of a root fails, the later ones of that root fail too,
 *    until the root is opened anew; they may build on the one that failed.
 *    Changes marked `standsAlone` are outside of this.
 * 5. A batch whose outcome got lost is looked up by its number and the hashes
 *    of its runs before anything else is stored. FENCED says that a change is
 *    not stored, and never will be; where that cannot be found out, as the
 *    writer was replaced meanwhile, it fails with OutcomeUnknown.
 */
import { setTimeout as delay, setImmediate as nextTurn } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import { type SessionEvent, SessionEventSchema } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { Logger } from "../../runtime/log/log.ts";
import { chainHash, emptyChain } from "../domain/chain.ts";
import type { Entry } from "../domain/entry.ts";
import {
  type AnsweredCommand,
  type AppendStore,
  addUsage,
  type Batch,
  type HeadMove,
  hasEnded,
  type NewRun,
  type NumberedEntry,
  type NumberedEvent,
  type Reply,
  runState,
  type SessionMove,
  type UsageDelta,
  type WriterPosition,
} from "./append-store.ts";
import { encodeEntry, entryKind } from "./entry-codec.ts";

/** An event before it has its number. */
export type UnnumberedEvent = Omit<SessionEvent, "seq" | "$typeName" | "$unknown">;

/** What one caller wants stored, all or nothing. UUIDs are text. */
export interface Change {
  /** The session or root run. */
  readonly rootId: string;
  readonly newRun?: Omit<NewRun, "rootId" | "shard">;
  /** In order; of runs that were opened, or of `newRun`. */
  readonly entries?: readonly { readonly runId: string; readonly entry: Entry }[];
  /** Where runs with new entries stand from now on; the others stand where they did. */
  readonly standings?: readonly RunStanding[];
  readonly events?: readonly UnnumberedEvent[];
  readonly usage?: UsageDelta;
  readonly deleted?: boolean;
  readonly reply?: Reply;
  readonly answered?: Omit<AnsweredCommand, "rootId">;
  /** Nothing that is submitted later builds on it. */
  readonly standsAlone?: boolean;
  /** Told once, when it is on its way, together with what shares its batch. It may be refused nevertheless. Must not throw. */
  readonly onSent?: () => void;
}

/** What a run's row says beside its head. */
export interface RunStanding extends Pick<HeadMove, "state" | "wakeAtMs"> {
  readonly runId: string;
  /** What readers see beside the journal; undefined leaves it. */
  readonly view?: Uint8Array;
}

/** A session or root run whose changes this process stores. */
export interface OpenRoot {
  readonly rootId: string;
  readonly shard: number;
  readonly epoch: bigint;
  /** The number of the session's last event. */
  readonly lastSeq: number;
  /** Runs that have not ended. */
  readonly runs: readonly ({ readonly runId: string } & Omit<
    HeadMove,
    "runId" | "from" | "previous" | "to" | "view"
  > & {
      readonly head: number;
    })[];
}

export interface CommitterOptions {
  readonly store: AppendStore;
  readonly writer: bigint;
  /** Whether no other process can be there, to hear of what is stored. Default: there may be. */
  readonly alone?: boolean;
  readonly log: Logger;
  /** Told what was stored, in order, before the change is answered. Must not throw. */
  readonly onStored: (rootId: string, events: readonly SessionEvent[], runIds: readonly string[]) => void;
  /** Told after each stored batch. Must not throw. */
  readonly onBatch?: () => void;
  /** Told once, when the writer was replaced. */
  readonly onFenced: () => void;
  /** Told when new work begins to be refused since too many entries wait for the relay, and when it is taken again. */
  readonly onBackpressure?: (isOn: boolean) => void;
  /** Renews the lease at once. */
  readonly renewLease: () => Promise<void>;
  /** How many changes wait at most before commands are refused. Default 10,000. */
  readonly maxQueuedChanges?: number;
  /** How many entries may wait for the relay before commands are refused. Default 100,000. */
  readonly maxUnrelayedEntries?: number;
}

/** A committer's figures. */
export interface CommitterStatus {
  readonly queued: number;
  readonly unrelayed: number;
  readonly batches: number;
}

interface RootHead {
  readonly shard: number;
  readonly epoch: bigint;
  lastSeq: number;
  readonly runs: Map<string, Pick<HeadMove, "chain" | "state" | "wakeAtMs"> & { readonly head: number }>;
  broken: boolean;
}

interface Waiting {
  readonly change: Change;
  /** The entries' bytes, in order. */
  readonly entries: readonly { readonly runId: string; readonly kind: number; readonly body: Uint8Array }[];
  /** The events' bytes without their numbers, in order. */
  readonly events: readonly Uint8Array[];
  readonly bytes: number;
  readonly head: RootHead;
  /** Until it is told. */
  onSent: (() => void) | undefined;
  readonly resolve: (events: readonly SessionEvent[]) => void;
  readonly reject: (error: AppError) => void;
}

interface Prepared {
  readonly batch: Batch;
  readonly events: readonly (readonly SessionEvent[])[];
  /** Moves the heads; called when the batch is stored. */
  readonly apply: () => void;
}

const maxBatchChanges = 512;
const maxBatchBytes = 4 * 1024 * 1024;
const maxQueuedBytes = 64 * 1024 * 1024;
/** How long a batch may be under way before callers are told, in milliseconds: longer than a restart of PostgreSQL. */
const patienceMs = 5_000;
const lookUpAgainMs = { first: 50, most: 2_000 } as const;
/** Of the entries that may wait, how many do when it is told that work is taken again: near the bound it comes and goes. */
const relievedShare = 0.9;
const noUsage: UsageDelta = { inputTokens: 0, outputTokens: 0, modelCalls: 0, toolCalls: 0, durationMs: 0 };

/** What became of a batch whose outcome got lost; `open` while it may still be stored, or nobody can tell. */
type Fate = "stored" | "never" | "open";

/** A change may be stored or not: the answer to its commit got lost, and so did the writer. */
export class OutcomeUnknown extends AppError {
  constructor() {
    super("UNAVAILABLE", "it is not known whether it was stored", { retryAfterMs: 1_000 });
  }
}

/** Whether a failure says that the root moved, or may have: its actor cannot go on, and what is stored has to be read anew. */
export function isLost(error: unknown): boolean {
  return error instanceof OutcomeUnknown || (error instanceof AppError && error.reason === "FENCED");
}

/** Stores changes of a writer by group commit. */
export class Committer {
  readonly writer: bigint;
  readonly #options: CommitterOptions;
  readonly #roots = new Map<string, RootHead>();
  readonly #maxQueued: number;
  readonly #maxUnrelayed: number;
  #queue: Waiting[] = [];
  #queuedBytes = 0;
  #running = false;
  #fenced = false;
  #number = 0n;
  #unrelayed = 0;
  #isPressed = false;
  /** When the batch that is under way was first sent; infinite while none is. */
  #storingSinceMs = Number.POSITIVE_INFINITY;
  #idle: (() => void)[] = [];

  constructor(options: CommitterOptions) {
    this.#options = options;
    this.writer = options.writer;
    this.#maxQueued = options.maxQueuedChanges ?? 10_000;
    this.#maxUnrelayed = options.maxUnrelayedEntries ?? 100_000;
  }

  get status(): CommitterStatus {
    return { queued: this.#queue.length, unrelayed: this.#unrelayed, batches: Number(this.#number) };
  }

  /** Takes over the numbering of a root, as it was read from the store. */
  open(root: OpenRoot): void {
    this.#roots.set(root.rootId, {
      shard: root.shard,
      epoch: root.epoch,
      lastSeq: root.lastSeq,
      runs: new Map(root.runs.map(({ runId, ...at }) => [runId, at])),
      broken: false,
    });
  }

  /** Forgets a root. What it still has in the queue fails. */
  close(rootId: string): void {
    const head = this.#roots.get(rootId);
    if (head !== undefined) head.broken = true;
    this.#roots.delete(rootId);
  }

  /**
   * Refuses new work that could not be stored soon; what runs already is always let through.
   *
   * @throws AppError UNAVAILABLE while the store does not take a batch, BACKPRESSURE while too much waits
   */
  assertRoom(): void {
    if (performance.now() - this.#storingSinceMs > patienceMs) {
      throw new AppError("UNAVAILABLE", "nothing can be stored now", { retryAfterMs: 1_000 });
    }
    if (this.#queue.length >= this.#maxQueued || this.#queuedBytes >= maxQueuedBytes) {
      throw new AppError("BACKPRESSURE", "too much waits to be stored", { retryAfterMs: 1_000 });
    }
    if (this.#unrelayed >= this.#maxUnrelayed) {
      throw new AppError("BACKPRESSURE", "too many facts wait for the bus", { retryAfterMs: 5_000 });
    }
  }

  /** How many entries wait for the relay: known by each batch, and told by the relay, which goes on while nothing is stored. */
  setUnrelayed(entries: number): void {
    this.#unrelayed = entries;
    const isOn = entries >= this.#maxUnrelayed || (this.#isPressed && entries > this.#maxUnrelayed * relievedShare);
    if (isOn === this.#isPressed) return;
    this.#isPressed = isOn;
    this.#options.onBackpressure?.(isOn);
  }

  /**
   * Stores a change and gives its events with their numbers.
   *
   * @throws AppError FENCED when the writer was replaced or the root is not
   * open, IDEMPOTENCY_IN_PROGRESS when its key was taken meanwhile,
   * INTERNAL when the change can never be stored. Nothing of it is stored then
   * @throws OutcomeUnknown
   */
  submit(change: Change): Promise<readonly SessionEvent[]> {
    const head = this.#roots.get(change.rootId);
    if (this.#fenced || head === undefined) return Promise.reject(fenced());
    const entries = (change.entries ?? []).map(({ runId, entry }) => ({
      runId,
      kind: entryKind[entry.body.type],
      body: encodeEntry(entry),
    }));
    const events = (change.events ?? []).map((event) =>
      toBinary(SessionEventSchema, create(SessionEventSchema, event)),
    );
    let bytes = change.newRun?.view.length ?? 0;
    for (const { body } of entries) bytes += body.length;
    for (const body of events) bytes += body.length;
    for (const { view } of change.standings ?? []) bytes += view?.length ?? 0;
    this.#queuedBytes += bytes;
    return new Promise((resolve, reject) => {
      this.#queue.push({ change, entries, events, bytes, head, onSent: change.onSent, resolve, reject });
      if (!this.#running) {
        this.#running = true;
        void this.#run();
      }
    });
  }

  /** Waits until all that was submitted so far is answered. */
  async drain(): Promise<void> {
    if (!this.#running) return;
    await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Fails everything that waits or comes: the writer was replaced, or stops. */
  fence(): void {
    if (this.#fenced) return;
    this.#fenced = true;
    const waiting = this.#queue;
    this.#queue = [];
    this.#queuedBytes = 0;
    for (const { reject } of waiting) reject(fenced());
    this.#options.onFenced();
  }

  async #run(): Promise<void> {
    while (this.#queue.length > 0) {
      // Whatever is ready shares the batch: the answers to the one before have made others submit, too.
      await nextTurn();
      await this.#store(this.#take());
    }
    this.#running = false;
    const idle = this.#idle;
    this.#idle = [];
    for (const resolve of idle) resolve();
  }

  #take(): Waiting[] {
    let bytes = 0;
    let count = 0;
    for (const waiting of this.#queue) {
      if (count >= maxBatchChanges || bytes >= maxBatchBytes) break;
      count += 1;
      bytes += waiting.bytes;
    }
    this.#queuedBytes -= bytes;
    return this.#queue.splice(0, count);
  }

  async #store(waiting: readonly Waiting[]): Promise<void> {
    const live = waiting.filter((item) => {
      if (!item.head.broken || item.change.standsAlone === true) return true;
      item.reject(fenced()); // 4
      return false;
    });
    if (live.length === 0) return;
    let prepared: Prepared;
    try {
      prepared = this.#prepare(live);
    } catch (cause) {
      await this.#split(live, new AppError("INTERNAL", "internal error", { cause }));
      return;
    }
    this.#storingSinceMs = performance.now();
    const appending = this.#append(prepared.batch);
    if (live.some(({ onSent }) => onSent !== undefined)) {
      // What they begin must not hold up the batch.
      await nextTurn();
      for (const item of live) {
        item.onSent?.();
        item.onSent = undefined;
      }
    }
    const failure = await appending;
    this.#storingSinceMs = Number.POSITIVE_INFINITY;
    if (failure === undefined) {
      prepared.apply();
      for (const [index, item] of live.entries()) {
        const events = prepared.events[index] ?? [];
        this.#options.onStored(item.change.rootId, events, runsOf(item));
        item.resolve(events); // 3
      }
      this.#options.onBatch?.();
      return;
    }
    if (this.#fenced) {
      for (const item of live) item.reject(failure instanceof OutcomeUnknown ? failure : fenced());
      return;
    }
    await this.#split(live, failure);
  }

  /** Finds the changes that cannot be stored, so that they do not take their neighbours along. */
  async #split(live: readonly Waiting[], failure: AppError): Promise<void> {
    if (live.length > 1) {
      const middle = Math.ceil(live.length / 2);
      await this.#store(live.slice(0, middle));
      await this.#store(live.slice(middle));
      return;
    }
    for (const item of live) {
      if (item.change.standsAlone !== true) item.head.broken = true; // 4
      if (failure.reason === "INTERNAL") {
        this.#options.log.error({ err: failure.cause, rootId: item.change.rootId }, "a change cannot be stored");
      }
      item.reject(failure);
    }
  }

  /** Stores a batch and learns its outcome, however long that takes. Undefined when it is stored. */
  async #append(batch: Batch): Promise<AppError | undefined> {
    let waitMs: number = lookUpAgainMs.first;
    let isUnknown = false;
    while (!this.#fenced) {
      const outcome = await this.#options.store.append(this.writer, batch);
      switch (outcome.type) {
        case "stored":
          this.#number = batch.number + 1n;
          this.setUnrelayed(outcome.unrelayed);
          return undefined;
        case "unknown":
          this.#options.log.warn({ err: outcome.cause }, "the outcome of a commit got lost");
          isUnknown = true;
          break;
        case "repeated":
          isUnknown = true;
          break;
        case "refused":
          if (outcome.why === "fenced") {
            this.fence();
            continue;
          }
          if (outcome.why === "invalid") return new AppError("INTERNAL", "internal error", { cause: outcome.cause });
          if (outcome.why === "key-taken") {
            return new AppError("IDEMPOTENCY_IN_PROGRESS", "the idempotency key was taken meanwhile");
          }
          await delay(waitMs);
          waitMs = Math.min(waitMs * 2, lookUpAgainMs.most);
          if (outcome.why === "expired") await this.#options.renewLease();
          continue;
      }
      const fate = await this.#lookUp(batch); // 5
      if (fate !== "open") return fate === "stored" ? undefined : fenced();
    }
    if (!isUnknown) return fenced();
    const fate = await this.#lookUp(batch);
    if (fate === "open") return new OutcomeUnknown();
    return fate === "stored" ? undefined : fenced();
  }

  /** What became of a batch, as the writer's row tells. Asks until there is an answer, but only once behind the fence. */
  async #lookUp(batch: Batch): Promise<Fate> {
    for (let waitMs: number = lookUpAgainMs.first; ; waitMs = Math.min(waitMs * 2, lookUpAgainMs.most)) {
      try {
        const position = await this.#options.store.position(this.writer);
        if (position === undefined || position.fenced) this.fence();
        if (position === undefined) return "open";
        // Fencing waits for an append that is under way, and lets no later one through.
        if (position.batch === batch.number) return position.fenced ? "never" : "open";
        if (await this.#isOurs(batch, position)) {
          this.#number = position.batch;
          return "stored";
        }
        this.fence();
        return "never";
      } catch (error) {
        this.#options.log.warn({ err: error }, "the outcome of a commit cannot be looked up now");
        if (this.#fenced) return "open";
        await delay(waitMs);
      }
    }
  }

  /** Whether what is stored behind a batch's number is that batch. */
  async #isOurs(batch: Batch, position: WriterPosition): Promise<boolean> {
    const heads = await this.#options.store.heads(batch.heads.map((head) => head.runId));
    const other = batch.heads.find(({ runId, to, chain }) => {
      const stored = heads.get(runId);
      // Who owns the run by now may have gone on behind it.
      if (stored === undefined || stored.head > to) return !position.fenced;
      return stored.head < to || !Buffer.from(stored.chain).equals(chain);
    });
    if (position.batch === batch.number + 1n && other === undefined) return true;
    this.#options.log.fatal({ runId: other?.runId }, "a stored batch is not the one that was sent");
    return false;
  }

  /** Numbers and chains what a batch holds. Throws if a change does not fit its root. */
  #prepare(live: readonly Waiting[]): Prepared {
    const shards = new Map<number, bigint>();
    const newRuns: NewRun[] = [];
    const entries: NumberedEntry[] = [];
    const heads = new Map<string, HeadMove>();
    const sessions = new Map<string, SessionMove>();
    const numbered: NumberedEvent[] = [];
    const replies: Reply[] = [];
    const answered: AnsweredCommand[] = [];
    const perChange: SessionEvent[][] = [];
    const owners = new Map<string, RootHead>();
    for (const { change, entries: encoded, events: bodies, head } of live) {
      const { rootId } = change;
      shards.set(head.shard, head.epoch);
      if (change.newRun !== undefined) {
        newRuns.push({ ...change.newRun, rootId, shard: head.shard });
        heads.set(change.newRun.runId, moveFrom(change.newRun.runId, startOfRun));
        owners.set(change.newRun.runId, head);
      }
      for (const { runId, kind, body } of encoded) {
        const stored = head.runs.get(runId);
        const move = heads.get(runId) ?? (stored === undefined ? undefined : moveFrom(runId, stored));
        if (move === undefined || hasEnded(move.state)) throw new TypeError("an entry of a run that is not open");
        const seq = move.to + 1;
        const hash = chainHash(move.chain, runId, seq, kind, body);
        entries.push({ runId, seq, kind, body, hash });
        heads.set(runId, { ...move, to: seq, chain: hash });
        owners.set(runId, head);
      }
      for (const { runId, state, wakeAtMs, view } of change.standings ?? []) {
        const move = heads.get(runId);
        if (move === undefined) throw new TypeError("a standing of a run without a new entry");
        heads.set(runId, { ...move, state, wakeAtMs, view: view ?? move.view });
      }
      const own: SessionEvent[] = [];
      if (change.events !== undefined || change.usage !== undefined || change.deleted === true) {
        const move = sessions.get(rootId) ?? {
          sessionId: rootId,
          from: head.lastSeq,
          to: head.lastSeq,
          usage: noUsage,
          deleted: false,
        };
        let seq = move.to;
        for (const [index, event] of (change.events ?? []).entries()) {
          seq += 1;
          const message = create(SessionEventSchema, { ...event, seq: BigInt(seq) });
          own.push(message);
          // Fields may come in any order: the number goes behind the bytes that are there.
          const number = toBinary(SessionEventSchema, create(SessionEventSchema, { seq: message.seq }));
          numbered.push({ sessionId: rootId, seq, body: Buffer.concat([bodies[index] ?? new Uint8Array(), number]) });
        }
        sessions.set(rootId, {
          ...move,
          to: seq,
          usage: addUsage(move.usage, change.usage ?? noUsage),
          deleted: move.deleted || change.deleted === true,
        });
      }
      perChange.push(own);
      if (change.reply !== undefined) replies.push(change.reply);
      if (change.answered !== undefined) answered.push({ ...change.answered, rootId });
    }
    return {
      batch: {
        number: this.#number,
        shards: [...shards].map(([shard, epoch]) => ({ shard, epoch })),
        newRuns,
        entries,
        heads: [...heads.values()],
        sessions: [...sessions.values()],
        events: numbered,
        replies,
        answered,
        told: this.#options.alone !== true,
      },
      events: perChange,
      apply: () => {
        for (const move of heads.values()) {
          const runs = owners.get(move.runId)?.runs;
          const { to: head, chain, state, wakeAtMs } = move;
          if (hasEnded(state)) runs?.delete(move.runId);
          else runs?.set(move.runId, { head, chain, state, wakeAtMs });
        }
        for (const { change, head } of live) {
          const move = sessions.get(change.rootId);
          if (move !== undefined) head.lastSeq = move.to;
        }
      },
    };
  }
}

const startOfRun = { head: 0, chain: emptyChain, state: runState.running, wakeAtMs: undefined } as const;

function moveFrom(
  runId: string,
  { head, chain, state, wakeAtMs }: Pick<HeadMove, "chain" | "state" | "wakeAtMs"> & { readonly head: number },
): HeadMove {
  return { runId, from: head, previous: chain, to: head, chain, state, wakeAtMs, view: undefined };
}

/** The runs that a change adds entries to. */
function runsOf({ entries }: Waiting): readonly string[] {
  const [first] = entries;
  if (first === undefined) return [];
  return entries.every(({ runId }) => runId === first.runId)
    ? [first.runId]
    : [...new Set(entries.map(({ runId }) => runId))];
}

function fenced(): AppError {
  return new AppError("FENCED", "it moved to another process");
}
