import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { Meter, Tracer } from "@opentelemetry/api";
import { sql } from "kysely";
import { AppError } from "../errors/app-error.ts";
import type { Logger } from "../log/log.ts";
import { byteaArray } from "../postgres/bytea-array.ts";
import type { Database } from "../postgres/database.ts";
import { migrate } from "../postgres/migrator.ts";
import { openDatabase } from "../postgres/open-database.ts";
import type { BusEvent, EventBus, SubscribeOptions, Subscription } from "./event-bus.ts";
import { migrations } from "./migrations/index.ts";
import { partitionOf } from "./partition.ts";
import { PostgresSubscription } from "./postgres-subscription.ts";
import { busTopics, type Topic } from "./topics.ts";

export interface PostgresEventBusOptions {
  /** As for `openDatabase`. */
  readonly url: string;
  readonly log: Logger;
  readonly tracer?: Tracer;
  readonly meter?: Meter;
  /** The topics to be there. Default: all of `topics.ts`, with their dead-letter topics. */
  readonly topics?: readonly Pick<Topic, "name" | "partitions">[];
  /** How long a member of a group may be silent before others take its partitions, in milliseconds. Default 15,000. */
  readonly leaseMs?: number;
  /** How long events are kept that every group has acknowledged, in days. Default 7. */
  readonly keepDays?: number;
}

const maxBatch = 1_000;
const maxBatchBytes = 16 * 1024 * 1024;

/**
 * Opens the bus that lives in PostgreSQL, in the schema `bus`. Brings the
 * schema up to date first, and waits for PostgreSQL as `migrate` does.
 */
export async function openPostgresEventBus(options: PostgresEventBusOptions): Promise<EventBus> {
  const { url, log, tracer, meter, topics = busTopics, leaseMs = 15_000, keepDays = 7 } = options;
  await migrate({ url, service: "bus", migrations, log });
  const database = openDatabase<Record<never, never>>({ url, service: "bus", log, maxConnections: 6, tracer, meter });
  const [names, partitions] = [topics.map((topic) => topic.name), topics.map((topic) => topic.partitions)];
  await sql`select ensure_topic(name, partitions)
    from unnest(${names}::text[], ${partitions}::int[]) as topic (name, partitions)`.execute(database.engine);
  return new PostgresEventBus(database, topics, { log, meter, leaseMs, keepDays });
}

class PostgresEventBus implements EventBus {
  readonly #database: Database<Record<never, never>>;
  readonly #partitions: ReadonlyMap<string, number>;
  readonly #log: Logger;
  readonly #meter: Meter | undefined;
  readonly #leaseMs: number;
  readonly #subscriptions = new Set<Subscription>();
  readonly #closing = new AbortController();
  readonly #pruning: Promise<void>;
  #closed: Promise<void> | undefined;

  constructor(
    database: Database<Record<never, never>>,
    topics: readonly Pick<Topic, "name" | "partitions">[],
    options: {
      readonly log: Logger;
      readonly meter: Meter | undefined;
      readonly leaseMs: number;
      readonly keepDays: number;
    },
  ) {
    this.#database = database;
    this.#partitions = new Map(topics.map(({ name, partitions }) => [name, partitions]));
    this.#log = options.log;
    this.#meter = options.meter;
    this.#leaseMs = options.leaseMs;
    this.#pruning = this.#prune(options.keepDays);
  }

  async publish(events: readonly BusEvent[]): Promise<void> {
    for (const batch of batchesOf(events)) {
      const partitions = batch.map((event) => {
        const count = this.#partitions.get(event.topic);
        if (count === undefined) throw new TypeError(`no topic ${event.topic}`);
        return partitionOf(event.key, count);
      });
      await sql`select append(
        ${batch.map((event) => event.topic)}::text[],
        ${partitions}::int[],
        ${batch.map((event) => event.key)}::text[],
        ${batch.map((event) => JSON.stringify(event.headers))}::text[],
        ${byteaArray(batch.map((event) => event.value))}::bytea[]
      )`.execute(this.#database.engine);
    }
  }

  subscribe(options: SubscribeOptions): Subscription {
    if (this.#closing.signal.aborted) throw new AppError("SHUTTING_DOWN", "the bus is closed");
    if (!this.#partitions.has(options.topic)) throw new TypeError(`no topic ${options.topic}`);
    const subscription = new PostgresSubscription(options, {
      database: this.#database,
      log: this.#log.child({ component: "bus", topic: options.topic, group: options.group }),
      meter: this.#meter,
      leaseMs: this.#leaseMs,
      member: randomUUID(),
    });
    this.#subscriptions.add(subscription);
    return {
      stop: async () => {
        await subscription.stop();
        this.#subscriptions.delete(subscription);
      },
    };
  }

  close(): Promise<void> {
    this.#closed ??= (async () => {
      this.#closing.abort();
      await Promise.all([...this.#subscriptions].map((subscription) => subscription.stop()));
      await this.#pruning;
      await this.#database.close();
    })();
    return this.#closed;
  }

  /** Removes what is old, every ten minutes, in batches. */
  async #prune(keepDays: number): Promise<void> {
    const { signal } = this.#closing;
    for (;;) {
      await delay(600_000, undefined, { signal, ref: false }).catch(() => undefined); // closing
      if (signal.aborted) return;
      try {
        for (let batch = 0; batch < 100 && !signal.aborted; batch++) {
          const { rows } = await sql<{ removed: bigint }>`select prune(${keepDays}::int, 1000) as removed`.execute(
            this.#database.engine,
          );
          if ((rows[0]?.removed ?? 0n) < 1_000n) break;
        }
      } catch (error) {
        this.#log.warn({ err: error }, "cannot prune the bus now");
      }
    }
  }
}

/** Cuts a list of events into batches that one statement carries. */
function* batchesOf(events: readonly BusEvent[]): Generator<readonly BusEvent[]> {
  let batch: BusEvent[] = [];
  let bytes = 0;
  for (const event of events) {
    if (batch.length > 0 && (batch.length === maxBatch || bytes + event.value.length > maxBatchBytes)) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(event);
    bytes += event.value.length;
  }
  if (batch.length > 0) yield batch;
}
