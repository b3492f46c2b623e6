import type { Kafka, ProducerBatch, RecordMetadata } from "kafkajs";
import pino from "pino";
import { expect, test } from "vitest";
import { partitionOf } from "../partition.ts";
import { KafkaPublisher } from "./kafka-publisher.ts";

const partitions = 3;
const events = Array.from({ length: 12 }, (_, index) => ({
  topic: "t",
  key: `key-${index}`,
  headers: {},
  value: new Uint8Array([index]),
}));

/** A client of kafkajs that acknowledges what it is told to, and keeps what it was sent. */
function fakeKafka(acknowledges: (partition: number) => boolean, sent: ProducerBatch[]): Kafka {
  const producer = {
    connect: async () => undefined,
    disconnect: async () => undefined,
    sendBatch: async (batch: ProducerBatch): Promise<RecordMetadata[]> => {
      sent.push(batch);
      const found = new Set(events.map(({ key }) => partitionOf(key, partitions)));
      return [...found].filter(acknowledges).map((partition) => ({ topicName: "t", partition, errorCode: 0 }));
    },
  };
  return { producer: () => producer } as unknown as Kafka;
}

test("a batch of which a partition was not acknowledged is not published, and goes again as a whole", async () => {
  const sent: ProducerBatch[] = [];
  let left: number | undefined = 1;
  const publisher = new KafkaPublisher({
    connect: async () => fakeKafka((partition) => partition !== left, sent),
    partitions: new Map([["t", partitions]]),
    log: pino({ level: "silent" }),
  });
  await expect(publisher.publish(events)).rejects.toMatchObject({
    reason: "UNAVAILABLE",
    message: expect.stringContaining("partition 1 of t was not acknowledged"),
  });
  left = undefined;
  await publisher.publish(events);
  expect(sent.map(({ topicMessages }) => topicMessages?.[0]?.messages.length)).toEqual([12, 12]);
  await publisher.close();
});
