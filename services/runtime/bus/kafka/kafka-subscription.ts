import { setTimeout as delay } from "node:timers/promises";
import { type Consumer, type EachBatchPayload, type Kafka, type PartitionAssigner, PartitionAssigners } from "kafkajs";
import type { Logger } from "../../log/log.ts";
import { backOffMs } from "../../wait/back-off.ts";
import type { SubscribeOptions, Subscription } from "../event-bus.ts";
import { KafkaPartition } from "./kafka-partition.ts";
import { type KafkaProblem, toKafkaProblem } from "./kafka-problem.ts";

// Invariants:
// S1. Before a member joins a group again, it ends and commits what it has
//     begun, so that the next owner of a partition neither overtakes nor
//     repeats it. Only a handler that takes longer than Kafka waits is aborted.
// S2. Fetching never waits for a handler, so that a slow one holds up its own
//     partition and no heartbeat. What is fetched waits here, within bounds.
// S3. What was fetched before a rebalance and comes after it never moves the
//     position past what was not handled.
// S4. However a consumer ends, another one is made, after a pause that grows
//     and is bounded, until `stop`.
// S5. A consumer whose broker gives no answer in time ends. kafkajs 2.2.4 asks
//     again on the same connection, three times: one that was lost unheard
//     would hold up its partitions for more than a minute.

export interface KafkaSubscriptionDependencies {
  /** Makes a client from the connection as it is configured now. */
  readonly connect: () => Promise<Kafka>;
  /** The group as Kafka knows it. */
  readonly groupId: string;
  readonly log: Logger;
  /** How long a member may be silent before others take its partitions, in milliseconds. */
  readonly sessionMs: number;
}

/** How long a fetch waits for events. A partition that had paused waits so long for its next ones. */
const maxFetchWaitMs = 200;
/** How long Kafka waits for members to end what they have begun. */
const rebalanceTimeoutMs = 60_000;
const disconnectTimeoutMs = 10_000;
/** Until another consumer is made. */
const waits = { firstMs: 200, mostMs: 5_000 } as const;

/** A member of a consumer group of Kafka. */
export class KafkaSubscription implements Subscription {
  readonly #options: SubscribeOptions;
  readonly #deps: KafkaSubscriptionDependencies;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #partitions = new Map<number, KafkaPartition>();
  /** Where retained partitions go on, until their first batch has come. */
  readonly #positions = new Map<number, bigint>();
  /** Sends a heartbeat if one is due; rejects while the group waits for us. */
  #heartbeat: () => Promise<void> = async () => undefined;
  #aliveAtMs = performance.now();
  #failed = 0;
  #problem: KafkaProblem | undefined;

  constructor(options: SubscribeOptions, deps: KafkaSubscriptionDependencies) {
    this.#options = options;
    this.#deps = deps;
    this.#running = this.#run();
  }

  /** Why it gets no events now; undefined if it does. */
  get problem(): KafkaProblem | undefined {
    return this.#problem;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { log } = this.#deps;
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        await this.#consume();
      } catch (error) {
        this.#failed += 1;
        this.#problem = toKafkaProblem(error);
        const { remedy } = this.#problem;
        log.warn({ err: this.#problem, remedy, failed: this.#failed }, "a consumer ended; another one is made");
        await delay(backOffMs(this.#failed, waits), undefined, { signal }).catch(() => undefined); // stopping
      }
    }
  }

  /** Runs one consumer until `stop`. Rejects when it ends by itself. */
  async #consume(): Promise<void> {
    const { groupId, sessionMs, connect } = this.#deps;
    this.#heartbeat = async () => undefined;
    const consumer = (await connect()).consumer({
      groupId,
      sessionTimeout: sessionMs,
      rebalanceTimeout: rebalanceTimeoutMs,
      heartbeatInterval: Math.round(sessionMs / 10),
      maxWaitTimeInMs: maxFetchWaitMs,
      allowAutoTopicCreation: false,
      partitionAssigners: [this.#assigner],
      retry: { retries: 3, restartOnFailure: async () => false }, // S4
    });
    const ended = Promise.withResolvers<never>();
    consumer.on(consumer.events.CRASH, ({ payload }) => ended.reject(payload.error));
    consumer.on(consumer.events.REQUEST_TIMEOUT, ({ payload: { broker, apiName } }) => {
      ended.reject(new Error(`${broker} gave no answer to ${apiName}`)); // S5
    });
    consumer.on(consumer.events.FETCH, () => this.#live());
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      this.#live();
      this.#failed = 0;
      this.#problem = undefined;
      this.#assign(consumer, payload.memberAssignment[this.#options.topic] ?? []);
    });
    try {
      await Promise.race([this.#start(consumer), ended.promise]);
      await Promise.race([this.#watch(), ended.promise]);
      await this.#finish();
    } finally {
      for (const partition of this.#partitions.values()) partition.lose();
      await Promise.race([consumer.disconnect(), delay(disconnectTimeoutMs, undefined, { ref: false })]);
    }
  }

  async #start(consumer: Consumer): Promise<void> {
    await consumer.connect();
    await consumer.subscribe({ topics: [this.#options.topic], fromBeginning: true });
    this.#live();
    await consumer.run({
      autoCommit: false,
      eachBatch: async (payload) => this.#take(consumer, payload),
    });
  }

  /** Resolves when it is to stop; rejects when the consumer gives no sign of life any more. */
  async #watch(): Promise<void> {
    const { signal } = this.#stopping;
    const maxSilenceMs = rebalanceTimeoutMs + 2 * this.#deps.sessionMs;
    while (!signal.aborted) {
      await delay(1_000, undefined, { signal }).catch(() => undefined); // stopping
      if (performance.now() - this.#aliveAtMs > maxSilenceMs) throw new Error("the consumer gives no sign of life");
    }
  }

  #live(): void {
    this.#aliveAtMs = performance.now();
  }

  /** Begins with the partitions of a new generation; all of the former have ended, or are aborted (S1). */
  #assign(consumer: Consumer, assigned: readonly number[]): void {
    const { topic } = this.#options;
    const { log } = this.#deps;
    const former = this.#partitions;
    this.#positions.clear();
    this.#partitions = new Map();
    // To leave a group can take a rebalance of its own.
    if (this.#stopping.signal.aborted) return;
    for (const partition of assigned) {
      const before = former.get(partition);
      if (before?.position !== undefined) this.#positions.set(partition, before.position);
      this.#partitions.set(
        partition,
        new KafkaPartition({
          ...this.#options,
          partition,
          former: before?.ended,
          commit: (next) => consumer.commitOffsets([{ topic, partition, offset: String(next) }]),
          log,
        }),
      );
    }
    for (const paused of consumer.paused()) consumer.resume([paused]);
  }

  #take(consumer: Consumer, { batch, pause, heartbeat }: EachBatchPayload): void {
    const { topic, partition } = batch;
    this.#heartbeat = heartbeat;
    if (this.#stopping.signal.aborted) return;
    const assignment = this.#partitions.get(partition);
    if (assignment === undefined) throw new Error(`a batch of partition ${partition}, which is not assigned`);
    const position = this.#positions.get(partition);
    this.#positions.delete(partition);
    const first = batch.messages[0];
    if (position !== undefined && first !== undefined && BigInt(first.offset) > position) {
      consumer.seek({ topic, partition, offset: String(position) }); // S3
      return;
    }
    assignment.add(batch.messages, pause);
  }

  /** Ends and commits what is under way, and stays a member meanwhile. */
  async #finish(): Promise<void> {
    const partitions = [...this.#partitions.values()];
    const finished = Promise.all(partitions.map((partition) => partition.finish())).then(() => true);
    const untilMs = performance.now() + rebalanceTimeoutMs * 0.8;
    while (performance.now() < untilMs) {
      const pause = new AbortController();
      const isFinished = await Promise.race([
        finished,
        delay(this.#deps.sessionMs / 10, false, { signal: pause.signal }),
      ]).finally(() => pause.abort());
      if (isFinished) return;
      // It is refused while the group waits for us, and counts all the same.
      await this.#heartbeat().catch(() => undefined);
    }
    for (const partition of partitions) partition.lose();
  }

  /**
   * Round robin, with S1: kafkajs offers no place to wait before a member joins
   * again, but looks for the group's coordinator there.
   */
  readonly #assigner: PartitionAssigner = (config) => {
    const { cluster } = config;
    const findGroupCoordinator = cluster.findGroupCoordinator.bind(cluster);
    cluster.findGroupCoordinator = async (group) => {
      await this.#finish();
      return findGroupCoordinator(group);
    };
    return PartitionAssigners.roundRobin(config);
  };
}
