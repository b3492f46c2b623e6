import { afterAll, beforeAll, test } from "vitest";
import { expectToSurviveKills } from "../support/bus-kills.ts";
import { type KafkaBroker, startKafkaBroker } from "./kafka-broker.ts";
import { makeTopics } from "./kafka-topics.ts";

// RESTARTS=20 npm run test:backends -- restart     as often as one likes
const kills = Number(process.env.RESTARTS ?? 4);
const minute = 60_000;
let broker: KafkaBroker;

beforeAll(async () => {
  broker = await startKafkaBroker({ security: "none" });
  await makeTopics(broker.connection, [{ name: "faulty", partitions: 6 }]);
});
afterAll(() => broker?.stop());

test("no event is lost and none overtakes another while the broker, relays and consumers are killed", {
  timeout: (kills + 2) * minute,
}, async () => {
  await expectToSurviveKills({
    broker: broker.connection.brokers[0] ?? "",
    keys: 200,
    perKey: 5 * (kills + 1),
    kills,
    leastBetween: 200,
    atKill: async () => {
      await broker.crash();
      await broker.start();
    },
  });
});
