import { TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FakeTools } from "../../test/support/fake-tools.ts";
import { type OpenAiServer, openAiTestKey, startOpenAiServer } from "../../test/support/openai-server.ts";
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
import { createOpenAiModel } from "./models/openai.ts";

let database: TestDatabase;
let world: TestOrchestrator;
let server: OpenAiServer;

beforeAll(async () => {
  server = await startOpenAiServer();
  database = await createTestDatabase();
  await migrateOrchestrator(database.url);
  world = await startTestOrchestrator({
    databaseUrl: database.url,
    models: [
      createOpenAiModel({ name: "gpt-test", baseUrl: server.baseUrl, key: () => openAiTestKey, contextTokens: 8_000 }),
    ],
    tools: new FakeTools()
      .add("add", ({ arguments: { text } }) => ({ sum: `${text}` }))
      .add("fails", () => {
        throw new Error("cannot");
      }),
  });
});

afterAll(async () => {
  await world?.stop();
  await server?.close();
  await database?.drop();
});

test("a turn over the wire: two parallel calls, a refusal, a cut stream, and the next turn's history", async () => {
  server.answers.push(
    { status: 429, retryAfter: "0" },
    {
      finish: "tool_calls",
      usage: { prompt: 100, completion: 20 },
      parts: [
        { text: "Let me see." },
        { call: 0, id: "call_a", name: "add", json: '{"te' },
        { call: 1, id: "call_b", name: "fails", json: '{"text":"y"}' },
        { call: 0, json: 'xt":"x"}' },
      ],
    },
    { parts: [{ text: "It is" }, { waitMs: 60 }, { text: " wro" }], cut: true },
    { parts: [{ text: "It is" }, { waitMs: 40 }, { text: " x." }], usage: { prompt: 150, completion: 5 } },
  );
  const sessionId = await newSession(world.sessions);
  await world.sessions.sendTurn({ sessionId, text: "Add." });
  const events = await readEvents(world.sessions, sessionId, 0n, endsTurn());
  expect(events.at(-1)?.body.value).toMatchObject({
    state: TurnState.SUCCEEDED,
    answer: "It is x.",
    usage: { inputTokens: 250n, outputTokens: 25n, modelCalls: 2, toolCalls: 2 },
  });
  expect(shownText(events)).toBe("Let me see.It is x.");
  expect(events.filter(({ body }) => body.case === "attemptDiscarded")).toHaveLength(1);

  const bodies = server.requests.map(({ body }) => body);
  expect(bodies).toHaveLength(4);
  expect(bodies[0]).toEqual(bodies[1]);
  // A second attempt is asked the very same.
  expect(bodies[2]).toEqual(bodies[3]);
  expect(bodies[2]?.messages.slice(1)).toEqual([
    { role: "user", content: "Add." },
    {
      role: "assistant",
      content: "Let me see.",
      tool_calls: [
        { id: "call_a", type: "function", function: { name: "add", arguments: '{"text":"x"}' } },
        { id: "call_b", type: "function", function: { name: "fails", arguments: '{"text":"y"}' } },
      ],
    },
    { role: "tool", tool_call_id: "call_a", content: '{"sum":"x"}' },
    { role: "tool", tool_call_id: "call_b", content: '{"error":{"reason":"TOOL_FAILED","message":"cannot"}}' },
  ]);
  expect(bodies[0]?.tools?.map((tool) => tool.function)).toMatchObject([
    { name: "add", parameters: { type: "object", required: ["text"] } },
    { name: "fails" },
  ]);

  server.answers.push({ parts: [{ text: "Yes." }] });
  const { turn } = await world.sessions.sendTurn({ sessionId, text: "Sure?" });
  await readEvents(world.sessions, sessionId, turn?.afterSeq ?? 0n, endsTurn());
  expect(
    server.requests
      .at(-1)
      ?.body.messages.slice(1)
      .map(({ role, content }) => [role, content]),
  ).toEqual([
    ["user", "Add."],
    ["assistant", "Let me see."],
    ["tool", '{"sum":"x"}'],
    ["tool", '{"error":{"reason":"TOOL_FAILED","message":"cannot"}}'],
    ["assistant", "It is x."],
    ["user", "Sure?"],
  ]);
});
