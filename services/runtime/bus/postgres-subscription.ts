import { setTimeout as delay } from "node:timers/promises";
import type { Meter, ObservableGauge, ObservableResult } from "@opentelemetry/api";
import { sql } from "kysely";
import type { Logger } from "../log/log.ts";
import type { Database } from "../postgres/database.ts";
import { backOffMs } from "../wait/back-off.ts";
import type { ReceivedEvent, SubscribeOptions, Subscription } from "./event-bus.ts";

// Invariants:
// S1. A member works on a partition only while it holds its lease, by its own
//     monotonic clock counted from before it asked for it.
// S2. An offset is committed only after the handler returned for it and all
//     before it. A commit is refused once the partition has another epoch.
// S3. A partition is given back only when no handler works on it any more, so
//     the next member does not overtake this one.

export interface SubscriptionDependencies {
  readonly database: Database<Record<never, never>>;
  readonly log: Logger;
  readonly meter: Meter | undefined;
  readonly leaseMs: number;
  /** Unique for each subscription. */
  readonly member: string;
}

const maxEvents = 100;
const maxBytes = 4 * 1024 * 1024;
const waits = { firstMs: 200, mostMs: 30_000 } as const;

/** A member of a consumer group of the bus in PostgreSQL. */
export class PostgresSubscription implements Subscription {
  readonly #options: SubscribeOptions;
  readonly #deps: SubscriptionDependencies;
  readonly #stopping = new AbortController();
  readonly #assignments = new Map<number, Assignment>();
  readonly #lagGauge: ObservableGauge | undefined;
  readonly #running: Promise<void>;
  #rouse: () => void = () => undefined;

  constructor(options: SubscribeOptions, deps: SubscriptionDependencies) {
    this.#options = options;
    this.#deps = deps;
    this.#lagGauge = deps.meter?.createObservableGauge("cadre.bus.lag", {
      description: "Events that a group has not acknowledged.",
    });
    this.#lagGauge?.addCallback(this.#observeLag);
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#lagGauge?.removeCallback(this.#observeLag);
    this.#stopping.abort();
    this.#rouse();
    await this.#running;
  }

  readonly #observeLag = async (result: ObservableResult): Promise<void> => {
    const { topic, group } = this.#options;
    try {
      const { rows } = await sql<{ lag: bigint }>`select group_lag(${group}, ${topic}) as lag`.execute(
        this.#deps.database.engine,
      );
      result.observe(Number(rows[0]?.lag ?? 0n), { topic, group });
    } catch (error) {
      this.#deps.log.debug({ err: error }, "the group's lag is not known now");
    }
  };

  async #run(): Promise<void> {
    const { database, log, leaseMs } = this.#deps;
    const wake = () => {
      for (const assignment of this.#assignments.values()) assignment.wake();
    };
    const unlisten = await database.listen("bus", (topic) => topic === this.#options.topic && wake(), wake);
    while (!this.#stopping.signal.aborted) {
      try {
        await this.#join();
      } catch (error) {
        log.warn({ err: error }, "cannot renew the place in the consumer group now");
      }
      await this.#sleep(leaseMs / 3);
    }
    await unlisten();
    await Promise.all([...this.#assignments.values()].map((assignment) => this.#giveBack(assignment)));
    try {
      await sql`select leave_group(${this.#options.group}, ${this.#options.topic}, ${this.#deps.member})`.execute(
        database.engine,
      );
    } catch (error) {
      log.warn({ err: error }, "could not leave the consumer group; its lease runs out");
    }
  }

  /** Renews the leases, begins with what is new, stops with what was lost or is too much. */
  async #join(): Promise<void> {
    const { database, leaseMs, member } = this.#deps;
    const { topic, group } = this.#options;
    const askedMs = performance.now();
    const { rows } = await sql<{ share: number; partition: number | null; epoch: bigint | null }>`
      select share, partition, epoch from join_group(${group}, ${topic}, ${member}, ${leaseMs}::int)`.execute(
      database.engine,
    );
    // S1: a margin for the database's clock being a little faster.
    const heldUntilMs = askedMs + leaseMs * 0.9;
    const held = new Map<number, bigint>();
    for (const { partition, epoch } of rows) if (partition !== null && epoch !== null) held.set(partition, epoch);

    for (const assignment of this.#assignments.values()) {
      if (held.get(assignment.partition) === assignment.epoch) assignment.renew(heldUntilMs);
      else assignment.lose();
    }
    for (const [partition, epoch] of held) {
      const former = this.#assignments.get(partition);
      if (former !== undefined && !former.isLost) continue;
      // Lost for a while, and nobody else came: its last handler may still be at work.
      const assignment = new Assignment(partition, epoch, heldUntilMs, this.#options, this.#deps, former?.ended);
      this.#assignments.set(partition, assignment);
    }
    for (const [partition, assignment] of this.#assignments) {
      if (assignment.isLost) this.#assignments.delete(partition);
    }
    const share = rows[0]?.share ?? 0;
    for (const assignment of [...this.#assignments.values()].slice(share)) {
      // S3, without holding up the renewal of the others.
      if (!assignment.isFinishing) void this.#giveBack(assignment);
    }
  }

  async #giveBack(assignment: Assignment): Promise<void> {
    const { database, log, member } = this.#deps;
    const { topic, group } = this.#options;
    await assignment.finish();
    try {
      await sql`select release_partition(${group}, ${topic}, ${assignment.partition}::int, ${member},
        ${assignment.epoch}::bigint)`.execute(database.engine);
    } catch (error) {
      log.warn({ err: error, partition: assignment.partition }, "could not give a partition back; its lease runs out");
    }
    if (this.#assignments.get(assignment.partition) === assignment) this.#assignments.delete(assignment.partition);
  }

  async #sleep(ms: number): Promise<void> {
    if (this.#stopping.signal.aborted) return;
    const woken = new AbortController();
    this.#rouse = () => woken.abort();
    await delay(ms, undefined, { signal: woken.signal }).catch(() => undefined); // stopping
  }
}

/** One partition in this member's hands, from one epoch's begin to its end. */
class Assignment {
  readonly partition: number;
  readonly epoch: bigint;
  readonly #options: SubscribeOptions;
  readonly #deps: SubscriptionDependencies;
  /** No new event is begun. */
  readonly #finishing = new AbortController();
  /** What is being handled belongs to somebody else by now. */
  readonly #lost = new AbortController();
  /** Resolves when nothing of this assignment runs any more. Never rejects. */
  readonly ended: Promise<void>;
  #leaseTimer: NodeJS.Timeout | undefined;
  #isAwake = false;
  #rouse: () => void = () => undefined;

  constructor(
    partition: number,
    epoch: bigint,
    heldUntilMs: number,
    options: SubscribeOptions,
    deps: SubscriptionDependencies,
    former: Promise<void> = Promise.resolve(),
  ) {
    this.partition = partition;
    this.epoch = epoch;
    this.#options = options;
    this.#deps = deps;
    this.renew(heldUntilMs);
    this.ended = former.then(() => this.#run());
  }

  get isLost(): boolean {
    return this.#lost.signal.aborted;
  }

  get isFinishing(): boolean {
    return this.#finishing.signal.aborted;
  }

  wake(): void {
    this.#isAwake = true;
    this.#rouse();
  }

  renew(heldUntilMs: number): void {
    clearTimeout(this.#leaseTimer);
    if (this.isLost) return;
    this.#leaseTimer = setTimeout(() => this.lose(), Math.max(heldUntilMs - performance.now(), 0)).unref();
  }

  /** Ends at once: the lease ran out, or somebody else has the partition. */
  lose(): void {
    clearTimeout(this.#leaseTimer);
    this.#lost.abort();
    this.#finishing.abort();
    this.#rouse();
  }

  /** Ends after the event under way, and after its offset was committed. */
  async finish(): Promise<void> {
    this.#finishing.abort();
    this.#rouse();
    await this.ended;
    clearTimeout(this.#leaseTimer);
  }

  async #run(): Promise<void> {
    const { log } = this.#deps;
    let failed = 0;
    while (!this.#finishing.signal.aborted) {
      this.#isAwake = false;
      try {
        const hadEvents = await this.#handleBatch();
        failed = 0;
        if (!hadEvents) await this.#sleep(5_000);
      } catch (error) {
        if (this.#lost.signal.aborted) return;
        failed += 1;
        log.warn({ err: error, partition: this.partition, failed }, "an event could not be handled; it comes again");
        await this.#sleep(backOffMs(failed, waits), "through");
      }
    }
  }

  /** Fetches, handles and commits; returns whether there was anything. Throws what the handler threw. */
  async #handleBatch(): Promise<boolean> {
    const { database, member } = this.#deps;
    const { topic, group, handle, prepare } = this.#options;
    const { rows } = await sql<{
      offset: bigint;
      key: string;
      headers: Record<string, string>;
      value: Buffer;
      published_at: Date;
    }>`select * from read_events(${group}, ${topic}, ${this.partition}::int, ${member}, ${this.epoch}::bigint,
        ${maxEvents}::int, ${maxBytes}::int)`.execute(database.engine);
    const events = rows.map(({ offset, key, headers, value, published_at: publishedAt }): ReceivedEvent => {
      return { topic, key, headers, value, offset, partition: this.partition, publishedAt };
    });
    if (events.length > 0) await prepare?.(events, this.#lost.signal);
    let acknowledged: bigint | undefined;
    try {
      for (const event of events) {
        if (this.#finishing.signal.aborted) break;
        await handle(event, this.#lost.signal);
        acknowledged = event.offset;
      }
    } finally {
      if (acknowledged !== undefined) await this.#commit(acknowledged + 1n);
    }
    return rows.length > 0;
  }

  async #commit(nextOffset: bigint): Promise<void> {
    const { database, log, member } = this.#deps;
    const { topic, group } = this.#options;
    const { rows } = await sql<{ committed: boolean }>`
      select commit_offset(${group}, ${topic}, ${this.partition}::int, ${member}, ${this.epoch}::bigint,
        ${nextOffset}::bigint) as committed`.execute(database.engine);
    if (rows[0]?.committed !== true) {
      log.warn({ partition: this.partition }, "a partition was lost to another member; its last events come again");
      this.lose();
    }
  }

  /** @param mode `through` sleeps on when new events come: those wait behind the one that fails */
  async #sleep(ms: number, mode: "wakeable" | "through" = "wakeable"): Promise<void> {
    if (this.#finishing.signal.aborted || (mode === "wakeable" && this.#isAwake)) return;
    const woken = new AbortController();
    this.#rouse = () => {
      if (mode === "wakeable" || this.#finishing.signal.aborted) woken.abort();
    };
    await delay(ms, undefined, { signal: woken.signal }).catch(() => undefined); // woken
    this.#rouse = () => undefined;
  }
}
