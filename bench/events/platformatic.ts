import { Consumer, MessagesStreamModes, ProduceAcks, Producer } from "@platformatic/kafka";
import { batchSize, type Contestant, createCounter } from "./contestant.ts";

interface Message {
  readonly topic: string;
  readonly key: Buffer;
  readonly value: Buffer;
  readonly headers: Map<Buffer, Buffer>;
}

/** `@platformatic/kafka` by itself, in the same way as `bareKafkajs`: which client is the driver to stand on? */
export async function barePlatformatic(bootstrapBrokers: readonly string[], topic: string): Promise<Contestant> {
  const base = { clientId: "platformatic", bootstrapBrokers: [...bootstrapBrokers] };
  const producer = new Producer({ ...base, maxInflights: 1 });
  const consumer = new Consumer({ ...base, groupId: "platformatic" });
  const counter = createCounter();
  const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.EARLIEST, autocommit: true });
  stream.on("data", () => counter.add(1));
  let prepared: readonly Message[] = [];
  return {
    name: "@platformatic/kafka",
    async prepare(events) {
      prepared = events.map(({ key, headers, value }) => ({
        topic,
        key: Buffer.from(key),
        value: Buffer.from(value),
        headers: new Map(Object.entries(headers).map(([name, text]) => [Buffer.from(name), Buffer.from(text)])),
      }));
    },
    async run() {
      const consumed = counter.more(prepared.length);
      for (let start = 0; start < prepared.length; start += batchSize) {
        await producer.send({ acks: ProduceAcks.ALL, messages: prepared.slice(start, start + batchSize) });
      }
      await consumed;
    },
    async close() {
      await stream.close();
      await consumer.close();
      await producer.close();
    },
  };
}
