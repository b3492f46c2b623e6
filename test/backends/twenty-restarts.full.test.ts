import { afterAll, beforeAll, expect, test } from "vitest";
import { busTopics } from "../../services/runtime/bus/topics.ts";
import { allWell, killBus } from "../support/bus-kills.ts";
import { say } from "../support/fault-driver.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { type KafkaBroker, startKafkaBroker } from "./kafka-broker.ts";
import { makeTopics } from "./kafka-topics.ts";

let broker: KafkaBroker;
let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
  broker = await startKafkaBroker();
  await makeTopics(broker.connection, busTopics);
});
afterAll(async () => {
  await broker?.stop();
  await database?.drop();
});

test("20,000 events over 200 keys while the broker, relays and consumers are killed 20 times", async () => {
  const verdict = await killBus({
    databaseUrl: database.url,
    kafka: broker.connection,
    ...{ keys: 200, perKey: 100, kills: 20, leastBetween: 200 },
    fault: { begin: () => broker.crash(), end: () => broker.start() },
  });
  say(JSON.stringify(verdict));
  expect(verdict).toMatchObject({ accepted: 20_200, ...allWell });
  expect(verdict.drainMs).toBeLessThan(60_000);
});
