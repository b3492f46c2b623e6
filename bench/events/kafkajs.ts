import { Kafka, logLevel, type Message, Partitioners } from "kafkajs";
import { batchSize, type Contestant, createCounter } from "./contestant.ts";

/** kafkajs by itself: the same bytes in the same batches, acknowledged by all replicas, one request in flight. */
export async function bareKafkajs(brokers: readonly string[], topic: string): Promise<Contestant> {
  const kafka = new Kafka({ clientId: "bare", brokers: [...brokers], logLevel: logLevel.ERROR });
  const producer = kafka.producer({ maxInFlightRequests: 1, createPartitioner: Partitioners.DefaultPartitioner });
  const consumer = kafka.consumer({ groupId: "bare" });
  const counter = createCounter();
  await producer.connect();
  await consumer.connect();
  await consumer.subscribe({ topics: [topic] });
  const joined = new Promise((resolve) => consumer.on(consumer.events.GROUP_JOIN, resolve));
  await consumer.run({
    eachBatch: async ({ batch, resolveOffset }) => {
      for (const message of batch.messages) resolveOffset(message.offset);
      counter.add(batch.messages.length);
    },
  });
  await joined;
  let prepared: readonly Message[] = [];
  return {
    name: "kafkajs",
    async prepare(events) {
      prepared = events.map(({ key, headers, value }) => ({ key, headers: { ...headers }, value: Buffer.from(value) }));
    },
    async run() {
      const consumed = counter.more(prepared.length);
      for (let start = 0; start < prepared.length; start += batchSize) {
        const messages = prepared.slice(start, start + batchSize);
        await producer.send({ topic, acks: -1, messages });
      }
      await consumed;
    },
    async close() {
      await consumer.disconnect();
      await producer.disconnect();
    },
  };
}
