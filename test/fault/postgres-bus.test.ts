import { expect, test } from "vitest";
import { crashPostgresBus } from "../faults/postgres-bus.ts";
import { allWell } from "../support/bus-kills.ts";
import { mutations } from "../support/mutate.ts";
import { createTestDatabase } from "../support/postgres.ts";
import { killRelay, relayBatch } from "../support/relay-kill.ts";

const timeout = 180_000;

test("the database, relays and consumers are killed: each event has its effect, once and in order", {
  timeout,
}, async () => {
  const verdict = await crashPostgresBus({ keys: 12, perKey: 60, kills: 2, leastBetween: 20 });
  expect(verdict).toMatchObject({ accepted: 732, ...allWell });
});

test.each([
  ["a relay that is killed before it publishes loses nothing", [], 0],
  [
    "control: one that ticks off what it has not published yet loses it",
    mutations["relayed before published"],
    relayBatch,
  ],
])("%s", { timeout }, async (_what, edits, lost) => {
  const database = await createTestDatabase();
  expect(await killRelay({ databaseUrl: database.url }, edits)).toMatchObject({ ...allWell, lost });
  await database.drop();
});
