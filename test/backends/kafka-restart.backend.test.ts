import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, inject, test } from "vitest";
import { busTopics } from "../../services/runtime/bus/topics.ts";
import { allWell, killBus } from "../support/bus-kills.ts";
import { assertMutated, mutatedEnvironment, mutations } from "../support/mutate.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { killRelay, relayBatch } from "../support/relay-kill.ts";
import { crashKafka, startKafka } from "./kafka-control.ts";
import { makeTopics, removeTopics } from "./kafka-topics.ts";

// `npm run test:backends -- twenty-restarts` does the first of these with twenty
// restarts and 20,000 events.

const timeout = 300_000;
const kafka = inject("kafka");
let database: TestDatabase;

beforeEach(async () => {
  await startKafka();
  await makeTopics(kafka, busTopics);
  database = await createTestDatabase();
});
afterEach(async () => {
  await database.drop();
  await removeTopics(
    kafka,
    busTopics.map(({ name }) => name),
  );
});

test("the broker, relays and consumers are killed: each event has its effect, once and in order", {
  timeout,
}, async () => {
  const verdict = await killBus({
    databaseUrl: database.url,
    kafka,
    ...{ keys: 100, perKey: 18, kills: 2, leastBetween: 200 },
    fault: { begin: crashKafka, end: startKafka },
  });
  expect(verdict).toMatchObject({ accepted: 1_900, ...allWell });
});

test("control: a relay that ticks off what it has not published yet loses it when it is killed", {
  timeout,
}, async () => {
  const edits = mutations["relayed before published"];
  const verdict = await killRelay({ databaseUrl: database.url, kafka }, edits);
  expect(verdict).toMatchObject({ ...allWell, lost: relayBatch });
});

test("control: without dedup the effects of a consumer that is killed double", { timeout }, async () => {
  const edits = mutations["no dedup"];
  const mutationLog = join(mkdtempSync(join(tmpdir(), "mutation-")), "log");
  const verdict = await killBus({
    databaseUrl: database.url,
    kafka,
    // A kill now and then comes when all that was handled has been acknowledged, and doubles nothing.
    ...{ keys: 50, perKey: 20, kills: 4, leastBetween: 50 },
    consumerEnvironment: mutatedEnvironment(edits, mutationLog),
  });
  assertMutated(edits, mutationLog);
  expect(verdict).toMatchObject({ lost: 0, unexpected: 0 });
  expect(verdict.doubled).toBeGreaterThan(0);
});
