import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { busTopics } from "../../services/runtime/bus/topics.ts";
import { redeliver } from "../faults/redelivery.ts";
import { makeTopics, removeTopics } from "./kafka-topics.ts";

const connection = inject("kafka");

beforeAll(() => makeTopics(connection, busTopics));
afterAll(() =>
  removeTopics(
    connection,
    busTopics.map(({ name }) => name),
  ),
);

test("1,000 events, each delivered ten times over Kafka, neighbours swapped, over a consumer's death and two rebalances: 1,000 effects", {
  timeout: 240_000,
}, async () => {
  const verdict = await redeliver({ events: 1_000, deliveries: 10, guest: true, kafka: connection });
  expect(verdict).toMatchObject({ effects: 1_000, distinct: 1_000 });
  expect(verdict.whenKilled).toBeGreaterThan(0);
});
