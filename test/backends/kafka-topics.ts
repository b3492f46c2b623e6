import type { Admin } from "kafkajs";
import pino from "pino";
import { createKafkaClient } from "../../services/runtime/bus/kafka/kafka-client.ts";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { createTopics } from "../../services/runtime/bus/kafka/kafka-topics.ts";

interface TopicShape {
  readonly name: string;
  readonly partitions: number;
}

/** Asks Kafka once. */
export async function askKafka<T>(connection: KafkaConnection, question: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = createKafkaClient(connection, pino({ level: "silent" })).admin();
  await admin.connect();
  try {
    return await question(admin);
  } finally {
    await admin.disconnect();
  }
}

/**
 * Makes topics that hold what they are given; those that are there stay.
 *
 * @param copies brokers that keep each event; one less is enough to take it
 */
export async function makeTopics(
  connection: KafkaConnection,
  topics: readonly TopicShape[],
  copies = 1,
): Promise<void> {
  const settings: Record<string, string> = copies === 1 ? {} : { "min.insync.replicas": String(copies - 1) };
  const declared = topics.map(({ name, partitions }) => ({ name, partitions, replication: copies, settings }));
  await askKafka(connection, (admin) => createTopics(admin, declared));
}

/** Removes topics. */
export async function removeTopics(connection: KafkaConnection, names: readonly string[]): Promise<void> {
  await askKafka(connection, (admin) => admin.deleteTopics({ topics: [...names] }));
}
