import { TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  endsTurn,
  migrateOrchestrator,
  newSession,
  readEvents,
  shownText,
  startTestOrchestrator,
  type TestOrchestrator,
} from "../../test/support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../../test/support/postgres.ts";

let database: TestDatabase;
let world: TestOrchestrator;

beforeAll(async () => {
  database = await createTestDatabase();
  await migrateOrchestrator(database.url);
  world = await startTestOrchestrator({ databaseUrl: database.url });
});

afterAll(async () => {
  await world?.stop();
  await database?.drop();
});

test("a turn is stored when it is answered, streams its text, and ends with the answer", async () => {
  const sessionId = await newSession(world.sessions);
  const { turn } = await world.sessions.sendTurn({ sessionId, text: "say The weather is fine." });
  const events = await readEvents(world.sessions, sessionId, turn?.afterSeq ?? 0n, endsTurn());
  expect(events.map((event) => event.seq)).toEqual(events.map((_, index) => BigInt(index + 1)));
  expect(events[0]?.body.case).toBe("turnStarted");
  expect(shownText(events)).toBe("The weather is fine.");
  const last = events.at(-1)?.body;
  expect(last?.case === "turnEnded" && last.value.state).toBe(TurnState.SUCCEEDED);
  expect(last?.case === "turnEnded" && last.value.answer).toBe("The weather is fine.");
  const stored = await world.sessions.getTurn({ sessionId, turnId: turn?.turnId ?? "" });
  expect(stored.turn).toMatchObject({ state: TurnState.SUCCEEDED, answer: "The weather is fine.", model: "scripted" });
  const again = await readEvents(world.sessions, sessionId, 0n, endsTurn());
  expect(again).toEqual(events);
});
