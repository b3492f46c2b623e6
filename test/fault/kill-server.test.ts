import { type SessionEvent, TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { type Cadre, createCadre, createTextView, defineTool } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";

// A person's server is killed with SIGKILL in the middle of a turn and started
// again. The person's client, and the app that serves the tools, live on and
// are told nothing.

let server: RunningCadre;
let cadre: Cadre;
const stopWorker = new AbortController();
/** Every call that reached the tools' handlers. */
const calls: { readonly tool: string; readonly key: string }[] = [];
let onSlowCall = (): void => {};
let finishSlowCall = (): void => {};

beforeAll(async () => {
  server = await startCadre({ settings: { CADRE_SCRIPTED_WORD_MS: "10" } });
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const inputSchema = { type: "object" };
  await cadre.tools.serve(
    [
      defineTool({
        name: "quick",
        description: "Ends at once.",
        inputSchema,
        handler: async (_, { idempotencyKey }) => {
          calls.push({ tool: "quick", key: idempotencyKey });
          return "quick is done";
        },
      }),
      defineTool({
        name: "slow",
        description: "Ends when it is told to.",
        inputSchema,
        handler: (_, { idempotencyKey }) => {
          calls.push({ tool: "slow", key: idempotencyKey });
          onSlowCall();
          return new Promise<string>((resolve) => (finishSlowCall = () => resolve("slow is done")));
        },
      }),
    ],
    { signal: stopWorker.signal },
  );
});
afterAll(async () => {
  stopWorker.abort();
  await server.dispose();
});

/** Sends a message and reads its turn to the end, over whatever happens meanwhile. */
async function follow(text: string, onEvent: (event: SessionEvent) => void = () => {}): Promise<SessionEvent[]> {
  const session = await cadre.sessions.create();
  const events: SessionEvent[] = [];
  for await (const event of session.stream(text, { reconnect: { maxDelayMs: 200 } })) {
    events.push(event);
    onEvent(event);
  }
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => BigInt(index + 1)));
  return events;
}

function outcomeOf(events: readonly SessionEvent[]): { state: TurnState; answer: string } {
  const body = events.at(-1)?.body;
  if (body?.case !== "turnEnded") throw new Error("the turn did not end");
  return body.value;
}

async function killAndRestart(): Promise<void> {
  await server.kill();
  server = await server.restart();
}

test("killed while text streams: the turn finishes, and what was shown in vain is discarded", async () => {
  const words = Array.from({ length: 60 }, (_, index) => `word-${index}`).join(" ");
  const view = createTextView();
  let deltas = 0;
  let killed: Promise<void> | undefined;
  const events = await follow(`say ${words}`, (event) => {
    view.apply(event);
    if (event.body.case === "textDelta" && ++deltas === 3) killed = killAndRestart();
  });
  await killed;
  expect(events.filter(({ body }) => body.case === "attemptDiscarded")).toHaveLength(1);
  expect(outcomeOf(events)).toMatchObject({ state: TurnState.SUCCEEDED, answer: words });
  expect(view.text).toBe(words);
}, 90_000);

test("killed while a tool runs: its call goes on, and the tool that had finished is not called again", async () => {
  const slowCalled = new Promise<void>((resolve) => (onSlowCall = resolve));
  const killed = slowCalled.then(async () => {
    await killAndRestart();
    finishSlowCall();
  });
  const events = await follow(["call quick {}", "say between", "call slow {}", "answer"].join("\n"));
  await killed;
  const { state, answer } = outcomeOf(events);
  expect(state).toBe(TurnState.SUCCEEDED);
  expect(answer).toContain("slow is done");
  expect(calls.filter(({ tool }) => tool === "quick")).toHaveLength(1);
  // Handed out once more or not: the effect has one key.
  expect(new Set(calls.filter(({ tool }) => tool === "slow").map(({ key }) => key)).size).toBe(1);
}, 90_000);

test("the next turn knows nothing of it", async () => {
  expect(outcomeOf(await follow("calculator: 6 * 7")).answer).toContain("42");
});
