import pino from "pino";
import { createKafkaClient } from "../../services/runtime/bus/kafka/kafka-client.ts";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";

/** Makes topics that hold what they are given, on a single broker. */
export async function makeTopics(
  connection: KafkaConnection,
  topics: readonly { readonly name: string; readonly partitions: number }[],
): Promise<void> {
  const admin = createKafkaClient(connection, pino({ level: "silent" })).admin();
  await admin.connect();
  try {
    await admin.createTopics({
      waitForLeaders: true,
      topics: topics.map(({ name, partitions }) => ({ topic: name, numPartitions: partitions, replicationFactor: 1 })),
    });
  } finally {
    await admin.disconnect();
  }
}

/** Removes topics. */
export async function removeTopics(connection: KafkaConnection, names: readonly string[]): Promise<void> {
  const admin = createKafkaClient(connection, pino({ level: "silent" })).admin();
  await admin.connect();
  try {
    await admin.deleteTopics({ topics: [...names] });
  } finally {
    await admin.disconnect();
  }
}
