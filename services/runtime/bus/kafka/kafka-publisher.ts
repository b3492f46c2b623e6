import type { Kafka, Message, Producer, RecordMetadata, TopicMessages } from "kafkajs";
import { AppError } from "../../errors/app-error.ts";
import type { Logger } from "../../log/log.ts";
import { within } from "../../wait/within.ts";
import type { BusEvent } from "../event-bus.ts";
import { partitionOf } from "../partition.ts";
import { KafkaProblem, missingTopic, otherPartitions, toKafkaProblem } from "./kafka-problem.ts";

// Invariants:
// P1. One request is in flight, and what was published first is sent first.
// P2. After a failure the producer is thrown away. Its sequence numbers may
//     disagree with the broker's, and what it had sent may still arrive: late,
//     as a repetition of what the caller has published again by then.
// P3. A key's partition comes from `partitionOf` and the topic's declared
//     number of partitions, never from what the broker happens to have.
// P4. A batch is published when each of its partitions was acknowledged. When
//     kafkajs 2.2.4 repeats a request after a partition has moved, it leaves that
//     partition out, and says all is well, if the new leader had answered for
//     others before (tulios/kafkajs#1303).

export interface KafkaPublisherOptions {
  /** Makes a client from the connection as it is configured now. */
  readonly connect: () => Promise<Kafka>;
  /** How many partitions each topic has. */
  readonly partitions: ReadonlyMap<string, number>;
  readonly log: Logger;
}

/** How long a request with all its repetitions may take. */
const maxSendMs = 30_000;
/** Publishers that may wait for their turn. */
const maxWaiting = 100;
const maxEvents = 1_000;
/** Below a broker's default limit of 1 MiB for what goes to one partition. */
const maxBytes = 900 * 1024;

/** Adds events to Kafka: acknowledged by all replicas, in order, with an idempotent producer. */
export class KafkaPublisher {
  readonly #options: KafkaPublisherOptions;
  #producer: Producer | undefined;
  #sending: Promise<unknown> = Promise.resolve();
  #last: Promise<void> = Promise.resolve();
  #waiting = 0;

  constructor(options: KafkaPublisherOptions) {
    this.#options = options;
  }

  /** As `EventBus.publish`. */
  async publish(events: readonly BusEvent[]): Promise<void> {
    if (this.#waiting >= maxWaiting) throw new AppError("UNAVAILABLE", "too many publishers wait for Kafka");
    this.#waiting += 1;
    const mine = this.#last.then(() => this.#publishNow(events)); // P1
    this.#last = mine.catch(() => undefined); // told to who published
    try {
      await mine;
    } finally {
      this.#waiting -= 1;
    }
  }

  /** Waits for what is being published, and disconnects. */
  async close(): Promise<void> {
    await this.#last;
    await this.#discard();
  }

  async #publishNow(events: readonly BusEvent[]): Promise<void> {
    try {
      for (const batch of batchesOf(events)) {
        const producer = await this.#connected();
        const sending = producer.sendBatch({ acks: -1, topicMessages: toTopicMessages(batch) });
        this.#sending = sending;
        this.#assertWhole(batch, await answered(maxSendMs, sending));
      }
    } catch (error) {
      await this.#discard(); // P2
      const problem = toKafkaProblem(error);
      throw new AppError("UNAVAILABLE", `${problem.message}. ${problem.remedy}`, { cause: problem });
    }
  }

  /** P4. @throws KafkaProblem */
  #assertWhole(batch: readonly BusEvent[], acknowledged: readonly RecordMetadata[]): void {
    const known = new Set(acknowledged.map(({ topicName, partition }) => `${topicName}/${partition}`));
    for (const { topic, key } of batch) {
      const partition = partitionOf(key, this.#options.partitions.get(topic) ?? 0);
      if (known.has(`${topic}/${partition}`)) continue;
      const message = `partition ${partition} of ${topic} was not acknowledged`;
      throw new KafkaProblem("not_yet", message, "The batch is published again.");
    }
  }

  async #connected(): Promise<Producer> {
    if (this.#producer !== undefined) return this.#producer;
    const kafka = await this.#options.connect();
    const producer = kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      createPartitioner: () => this.#partition,
      // What it says about limits and idempotence is what P2 is for.
      retry: { retries: 3 },
    });
    this.#producer = producer;
    await answered(maxSendMs, producer.connect());
    return producer;
  }

  readonly #partition = ({
    topic,
    partitionMetadata,
    message,
  }: {
    readonly topic: string;
    readonly partitionMetadata: readonly unknown[];
    readonly message: Message;
  }): number => {
    const declared = this.#options.partitions.get(topic);
    if (declared === undefined) throw missingTopic(topic);
    if (partitionMetadata.length !== declared) throw otherPartitions(topic, partitionMetadata.length, declared);
    return partitionOf(String(message.key), declared); // P3
  };

  async #discard(): Promise<void> {
    const producer = this.#producer;
    if (producer === undefined) return;
    this.#producer = undefined;
    const disconnect = async (): Promise<void> => {
      try {
        await answered(5_000, producer.disconnect());
      } catch (error) {
        this.#options.log.debug({ err: error }, "a producer did not disconnect");
      }
    };
    await disconnect();
    // A send that was given up connects again to repeat itself.
    void this.#sending.then(disconnect, disconnect);
  }
}

/** Cuts a list of events into batches that one request carries. */
function* batchesOf(events: readonly BusEvent[]): Generator<readonly BusEvent[]> {
  let batch: BusEvent[] = [];
  let bytes = 0;
  for (const event of events) {
    const eventBytes = bytesOf(event);
    if (batch.length > 0 && (batch.length === maxEvents || bytes + eventBytes > maxBytes)) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(event);
    bytes += eventBytes;
  }
  if (batch.length > 0) yield batch;
}

/** About what it takes in a request; texts are ASCII but for what nobody forbids in a header. */
function bytesOf({ key, headers, value }: BusEvent): number {
  let bytes = value.length + key.length + 32;
  for (const [name, text] of Object.entries(headers)) bytes += name.length + text.length + 4;
  return bytes;
}

function toTopicMessages(events: readonly BusEvent[]): TopicMessages[] {
  const byTopic = new Map<string, Message[]>();
  for (const { topic, key, headers, value } of events) {
    const messages = byTopic.get(topic) ?? [];
    byTopic.set(topic, messages);
    messages.push({
      key,
      headers: { ...headers },
      value: Buffer.from(value.buffer, value.byteOffset, value.byteLength),
    });
  }
  return [...byTopic].map(([topic, messages]) => ({ topic, messages }));
}

/** Rejects when it takes longer; what goes on is waited for by nobody. */
function answered<T>(timeoutMs: number, work: Promise<T>): Promise<T> {
  return within<T, never>(timeoutMs, work, () => {
    throw new Error(`no answer within ${timeoutMs} ms`);
  });
}
