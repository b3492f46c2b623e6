import { setTimeout as delay } from "node:timers/promises";
import type { IHeaders, KafkaMessage } from "kafkajs";
import type { Logger } from "../../log/log.ts";
import { backOffMs } from "../../wait/back-off.ts";
import type { ReceivedEvent, SubscribeOptions } from "../event-bus.ts";

// Invariants:
// A1. One event is handled at a time, in the order of offsets.
// A2. An offset is committed only after the handler returned for it and all
//     before it, and never once the partition is lost.
// A3. `ended` resolves only when no handler of this assignment runs any more.

export interface KafkaPartitionOptions extends SubscribeOptions {
  readonly partition: number;
  /** Makes `nextOffset` the group's position in this partition. */
  readonly commit: (nextOffset: bigint) => Promise<void>;
  readonly log: Logger;
  /** The assignment of the same partition before this one. */
  readonly former: Promise<void> | undefined;
}

/** Fetching pauses at so many events that wait, and goes on at half. */
const maxQueued = 2_000;
const maxPrepared = 100;
const maxUncommitted = 500;
const maxUncommittedMs = 1_000;
/** A partition without events commits after this; at once would be a request for each few events. */
const idleCommitMs = 100;
/** Until an event whose handler failed comes again. */
const handlerWaits = { firstMs: 200, mostMs: 30_000 } as const;
/** Until a commit that failed is tried again. */
const commitWaits = { firstMs: 200, mostMs: 10_000 } as const;

/** One partition in this member's hands, from one rebalance to the next. */
export class KafkaPartition {
  readonly #options: KafkaPartitionOptions;
  /** No new event is begun. */
  readonly #finishing = new AbortController();
  /** What is being handled belongs to somebody else by now. */
  readonly #lost = new AbortController();
  /** Resolves when nothing of this assignment runs any more. Never rejects. */
  readonly ended: Promise<void>;
  #queue: KafkaMessage[] = [];
  #head = 0;
  /** The offset of the first event that was fetched. */
  #first: bigint | undefined;
  /** One more than the offset of the last event that was acknowledged. */
  #acknowledged: bigint | undefined;
  /** The last offset that `prepare` was told of. */
  #preparedTo: bigint | undefined;
  #uncommitted = 0;
  #committedAtMs = performance.now();
  #failedCommits = 0;
  /** Before this none is tried, as the last ones failed. */
  #nextCommitAtMs = 0;
  #resume: (() => void) | undefined;
  #rouse: () => void = () => undefined;

  constructor(options: KafkaPartitionOptions) {
    this.#options = options;
    this.ended = (options.former ?? Promise.resolve()).then(() => this.#run());
  }

  /** The first offset that was not acknowledged, once something was fetched. */
  get position(): bigint | undefined {
    return this.#acknowledged ?? this.#first;
  }

  /** Takes what was fetched; calls `pause` if that is enough for now, and what it gives when there is room. */
  add(messages: readonly KafkaMessage[], pause: () => () => void): void {
    if (this.#finishing.signal.aborted) return;
    this.#queue = [...this.#queue.slice(this.#head), ...messages];
    this.#head = 0;
    const first = messages[0];
    if (first !== undefined) this.#first ??= BigInt(first.offset);
    if (this.#queue.length >= maxQueued) this.#resume ??= pause();
    this.#rouse();
  }

  /** Ends after the event under way, and after its offset was committed. */
  async finish(): Promise<void> {
    this.#finishing.abort();
    this.#rouse();
    await this.ended;
  }

  /** Ends at once: somebody else has the partition, or may have it. */
  lose(): void {
    this.#lost.abort();
    this.#finishing.abort();
    this.#rouse();
  }

  async #run(): Promise<void> {
    const { log, partition } = this.#options;
    let failed = 0;
    while (!this.#finishing.signal.aborted) {
      const message = this.#queue[this.#head];
      if (message === undefined) {
        if (!(await this.#woken()) && this.#mayCommit()) await this.#commit();
        continue;
      }
      try {
        await this.#prepare(BigInt(message.offset));
        await this.#options.handle(this.#toEvent(message), this.#lost.signal); // A1
        failed = 0;
        this.#acknowledge(message);
        if (this.#isCommitDue()) await this.#commit();
      } catch (error) {
        if (this.#lost.signal.aborted) break;
        failed += 1;
        log.warn({ err: error, partition, failed }, "an event could not be handled; it comes again");
        await this.#commit();
        await delay(backOffMs(failed, handlerWaits), undefined, {
          signal: this.#finishing.signal,
        }).catch(() => undefined); // finishing
      }
    }
    await this.#commit();
  }

  /** Tells what comes next, each event once. */
  async #prepare(offset: bigint): Promise<void> {
    const { prepare } = this.#options;
    if (prepare === undefined || (this.#preparedTo !== undefined && offset <= this.#preparedTo)) return;
    const events = this.#queue.slice(this.#head, this.#head + maxPrepared).map((message) => this.#toEvent(message));
    await prepare(events, this.#lost.signal);
    this.#preparedTo = events.at(-1)?.offset;
  }

  #acknowledge(message: KafkaMessage): void {
    this.#acknowledged = BigInt(message.offset) + 1n;
    this.#uncommitted += 1;
    this.#head += 1;
    if (this.#resume !== undefined && this.#queue.length - this.#head <= maxQueued / 2) {
      this.#resume();
      this.#resume = undefined;
    }
  }

  #mayCommit(): boolean {
    return performance.now() >= this.#nextCommitAtMs;
  }

  #isCommitDue(): boolean {
    if (!this.#mayCommit()) return false;
    return this.#uncommitted >= maxUncommitted || performance.now() - this.#committedAtMs >= maxUncommittedMs;
  }

  /** Never rejects: that an offset is not committed only means that its events come again. */
  async #commit(): Promise<void> {
    const position = this.#acknowledged;
    if (position === undefined || this.#uncommitted === 0 || this.#lost.signal.aborted) return; // A2
    try {
      await this.#options.commit(position);
      this.#uncommitted = 0;
      this.#failedCommits = 0;
    } catch (error) {
      const { log, partition } = this.#options;
      this.#failedCommits += 1;
      const failed = this.#failedCommits;
      this.#nextCommitAtMs = performance.now() + backOffMs(failed, commitWaits);
      log.warn({ err: error, partition, failed }, "an offset could not be committed; its events may come again");
    }
    this.#committedAtMs = performance.now();
  }

  /** Waits for events; false if none came for long enough to commit what was acknowledged. */
  async #woken(): Promise<boolean> {
    if (this.#finishing.signal.aborted) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#rouse = () => resolve(true);
    const idleMs = Math.max(idleCommitMs, this.#nextCommitAtMs - performance.now());
    const timer = this.#uncommitted === 0 ? undefined : setTimeout(resolve, idleMs, false);
    const isWoken = await promise;
    clearTimeout(timer);
    return isWoken;
  }

  #toEvent(message: KafkaMessage): ReceivedEvent {
    const { topic, partition } = this.#options;
    return {
      topic,
      partition,
      key: message.key?.toString() ?? "",
      headers: toTexts(message.headers),
      value: message.value ?? new Uint8Array(),
      offset: BigInt(message.offset),
      publishedAt: new Date(Number(message.timestamp)),
    };
  }
}

/** Of a header that is there several times, the last counts. */
function toTexts(headers: IHeaders | undefined): Record<string, string> {
  const texts: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers ?? {})) {
    const last = Array.isArray(value) ? value.at(-1) : value;
    if (last !== undefined) texts[name] = last.toString();
  }
  return texts;
}
