import { writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type OpenAiServer, openAiTestKey, startOpenAiServer } from "../../../test/support/openai-server.ts";
import { newId } from "../../runtime/ids/id.ts";
import { ModelCallError, type ModelEvent, type ModelRequest } from "./model.ts";
import { createOpenAiModel, type OpenAiModelOptions } from "./openai.ts";
import { createKeySource } from "./openai-key.ts";

let server: OpenAiServer;

beforeEach(async () => {
  server = await startOpenAiServer();
});

afterEach(() => server.close());

const request: ModelRequest = {
  instructions: "Be brief.",
  messages: [{ role: "user", text: "What is 2+2, and 3+3?" }],
  tools: [{ name: "calculator", description: "Calculates.", inputSchema: { type: "object" } }],
  answerSchema: undefined,
  stepId: newId("stp"),
};

const waits: number[] = [];

function model(options: Partial<OpenAiModelOptions> = {}) {
  waits.length = 0;
  return createOpenAiModel({
    name: "gpt-test",
    baseUrl: server.baseUrl,
    key: () => openAiTestKey,
    contextTokens: 1_000,
    wait: async (ms) => void waits.push(ms),
    ...options,
  });
}

async function ask(options: Partial<OpenAiModelOptions> = {}, more: Partial<ModelRequest> = {}): Promise<ModelEvent[]> {
  const events: ModelEvent[] = [];
  for await (const event of model(options).stream({ ...request, ...more }, new AbortController().signal))
    events.push(event);
  return events;
}

async function failure(call: Promise<unknown>): Promise<ModelCallError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof ModelCallError) return error;
    throw error;
  }
  throw new Error("the call succeeded");
}

describe("an OpenAI-compatible endpoint", () => {
  test("streams text and counts usage", async () => {
    server.answers.push({ parts: [{ text: "fo" }, { text: "ur" }], usage: { prompt: 10, completion: 2 } });
    expect(await ask()).toEqual([
      { type: "text", text: "fo" },
      { type: "text", text: "ur" },
      { type: "end", inputTokens: 10, outputTokens: 2 },
    ]);
    const seen = server.requests[0];
    expect(seen?.body).toEqual({
      model: "gpt-test",
      stream: true,
      stream_options: { include_usage: true },
      messages: [
        { role: "system", content: "Be brief." },
        { role: "user", content: "What is 2+2, and 3+3?" },
      ],
      tools: [
        {
          type: "function",
          function: { name: "calculator", description: "Calculates.", parameters: { type: "object" } },
        },
      ],
    });
  });

  test("gives parallel calls whose parts come interleaved, without a role, without an id, and with broken arguments", async () => {
    server.answers.push({
      omitRole: true,
      finish: "tool_calls",
      parts: [
        { call: 0, id: "a", name: "calculator", json: '{"expr' },
        { call: 1, name: "calculator", json: '{"expression":' },
        { call: 0, json: 'ession":"2+2"}' },
        { call: 1, json: '"3+3"}' },
        { call: 2, id: "c", name: "calculator", json: "{oops" },
      ],
    });
    const calls = (await ask()).flatMap((event) => (event.type === "tool-call" ? [event.call] : []));
    expect(calls).toMatchObject([
      { callId: "a", tool: "calculator", arguments: { expression: "2+2" }, malformed: "" },
      { tool: "calculator", arguments: { expression: "3+3" }, malformed: "" },
      { callId: "c", arguments: {}, malformed: "{oops" },
    ]);
    expect(calls[1]?.callId).toMatch(/^call_/);
  });

  test("hands a schema on as the native response format", async () => {
    server.answers.push({ parts: [{ text: "{}" }] });
    await ask({}, { answerSchema: { type: "object" } });
    expect(server.requests[0]?.body.response_format).toEqual({
      type: "json_schema",
      json_schema: { name: "answer", schema: { type: "object" } },
    });
  });

  test("is asked again after 429 and 503, no sooner than Retry-After says", async () => {
    server.answers.push({ status: 429, retryAfter: "7" }, { status: 503 }, { parts: [{ text: "ok" }] });
    expect((await ask())[0]).toEqual({ type: "text", text: "ok" });
    expect(waits[0]).toBe(7_000);
    expect(waits[1]).toBeLessThan(7_000);
    expect(server.requests).toHaveLength(3);
  });

  test("is given up after four tries, and at once when it asks for too long a wait", async () => {
    server.answers.push(...Array.from({ length: 5 }, () => ({ status: 500 })));
    const error = await failure(ask());
    expect(error).toMatchObject({ retryable: true, error: { reason: "MODEL_FAILED" } });
    expect(server.requests).toHaveLength(4);
    server.answers.unshift({ status: 429, retryAfter: "3600" });
    expect((await failure(ask())).retryable).toBe(true);
    expect(server.requests).toHaveLength(5);
  });

  test.each([
    [400, "the provider refused the request with 400"],
    [401, "the provider refuses the key"],
  ])("fails for good with %i", async (status, message) => {
    server.answers.push({ status });
    const error = await failure(ask());
    expect(error).toMatchObject({ retryable: false, error: { reason: "MODEL_FAILED", message } });
    expect(server.requests).toHaveLength(1);
  });

  test("never repeats the key or what the provider said about it", async () => {
    const error = await failure(ask({ key: () => "wrong-secret-key" }));
    expect(JSON.stringify([error.message, error.error])).not.toContain("secret");
  });

  test("that is cut in the middle fails so that another attempt may follow, after the text it gave", async () => {
    server.answers.push({ parts: [{ text: "half" }], cut: true });
    const events: ModelEvent[] = [];
    const error = await failure(
      (async () => {
        for await (const event of model().stream(request, new AbortController().signal)) events.push(event);
      })(),
    );
    expect(events).toEqual([{ type: "text", text: "half" }]);
    expect(error).toMatchObject({ retryable: true, error: { message: "the model's stream was cut" } });
  });

  test("that falls silent, or never begins, fails in time", async () => {
    server.answers.push({ parts: [{ text: "a" }, { waitMs: 2_000 }, { text: "b" }] });
    expect((await failure(ask({ timeouts: { idleMs: 100 } }))).message).toBe("the model fell silent");
    server.answers.push({ silent: true });
    expect((await failure(ask({ timeouts: { firstChunkMs: 100 } }))).message).toBe(
      "the model did not begin to answer in time",
    );
  });

  test("that is not there is tried again, then fails", async () => {
    const { baseUrl } = server;
    await server.close();
    const error = await failure(ask({ baseUrl }));
    expect(error).toMatchObject({ retryable: true, error: { message: "the provider cannot be reached" } });
    expect(waits).toHaveLength(3);
    server = await startOpenAiServer();
  });

  test("is left when the caller gives up", async () => {
    server.answers.push({ parts: [{ text: "a" }, { waitMs: 5_000 }] });
    const leaving = new AbortController();
    const reading = (async () => {
      for await (const event of model().stream(request, leaving.signal)) if (event.type === "text") leaving.abort();
    })();
    await expect(reading).rejects.toThrow(/abort|cut/i);
  });
});

test("a key in a file is read again when it changes", async () => {
  const folder = await mkdtemp(join(tmpdir(), "key-"));
  try {
    const file = join(folder, "key");
    const key = createKeySource(undefined, file);
    expect(key()).toBeUndefined();
    writeFileSync(file, "first\n");
    expect(key()).toBe("first");
    writeFileSync(file, "second\n");
    const { utimesSync } = await import("node:fs");
    utimesSync(file, new Date(), new Date(Date.now() + 5_000));
    expect(key()).toBe("second");
    await rm(file);
    expect(key()).toBeUndefined();
  } finally {
    await rm(folder, { recursive: true });
  }
});
