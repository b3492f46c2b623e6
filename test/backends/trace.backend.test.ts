import pino from "pino";
import { afterAll, beforeAll, inject, test } from "vitest";
import { openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { busTopics } from "../../services/runtime/bus/topics.ts";
import { expectRunTraces } from "../support/run-trace.ts";
import { makeTopics, removeTopics } from "./kafka-topics.ts";

const connection = inject("kafka");
const log = pino({ level: "silent" });

beforeAll(() => makeTopics(connection, busTopics));
afterAll(() =>
  removeTopics(
    connection,
    busTopics.map(({ name }) => name),
  ),
);

test("a run is one trace over RPC or Kafka, journal, steps, tools, facts on Kafka and their handlers", {
  timeout: 300_000,
}, async () => {
  const settings = { CADRE_BUS: "kafka", CADRE_KAFKA_BROKERS: connection.brokers.join(",") };
  await expectRunTraces(settings, async () =>
    openKafkaEventBus({ connection: async () => connection, log, sessionMs: 6_000 }),
  );
});
