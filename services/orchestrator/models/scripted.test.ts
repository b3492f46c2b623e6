import { describe, expect, test } from "vitest";
import { newId } from "../../runtime/ids/id.ts";
import type { Message } from "../domain/conversation.ts";
import type { JsonObject } from "../domain/json.ts";
import type { ModelEvent } from "./model.ts";
import { createScriptedModel } from "./scripted.ts";

const tool = (name: string, inputSchema: JsonObject) => ({ name, description: "", inputSchema });
const tools = [
  tool("calculator", { type: "object", properties: { expression: { type: "string" } }, required: ["expression"] }),
  tool("clock", { type: "object", properties: { zone: { type: "string" } } }),
  tool("roll", { type: "object", properties: { sides: { type: "integer" } }, required: ["sides"] }),
];

async function say(messages: readonly Message[], answerSchema?: JsonObject): Promise<ModelEvent[]> {
  const request = { instructions: "", messages, tools, answerSchema, stepId: newId("stp") };
  const events: ModelEvent[] = [];
  for await (const event of createScriptedModel().stream(request, new AbortController().signal)) events.push(event);
  return events;
}

const user = (text: string): Message => ({ role: "user", text });
const text = (events: readonly ModelEvent[]): string =>
  events.map((event) => (event.type === "text" ? event.text : "")).join("");
const calls = (events: readonly ModelEvent[]) =>
  events.flatMap((event) => (event.type === "tool-call" ? [[event.call.tool, event.call.arguments]] : []));

describe("the scripted model", () => {
  test.each([
    ["calculator: 2+2", ["calculator", { expression: "2+2" }]],
    ["use calculator 2 + 2", ["calculator", { expression: "2 + 2" }]],
    ["Please ask the calculator for 6 * 7.", ["calculator", { expression: "6 * 7" }]],
    ['calculator {"expression":"1"}', ["calculator", { expression: "1" }]],
    ["roll 6", ["roll", { sides: 6 }]],
    ["what does the clock say? Europe/Berlin", ["clock", { zone: "say? Europe/Berlin" }]],
  ])("calls the tool named in %j", async (prompt, expected) => {
    expect(calls(await say([user(prompt)]))).toEqual([expected]);
  });

  test("says what it heard when no tool is named", async () => {
    expect(text(await say([user("hello there")]))).toBe("You said: hello there");
  });

  test("streams word by word, and loses no blank", async () => {
    const events = await say([user("say one two  three")]);
    expect(events.filter(({ type }) => type === "text")).toHaveLength(3);
    expect(text(events)).toBe("one two  three");
  });

  test("plays a script portion by portion, behind each group of calls", async () => {
    const script = user('say first\ncall calculator {"expression":"1"}\ncall clock\nsay then\ncall clock {}\nanswer');
    const first = await say([script]);
    expect([text(first), calls(first)]).toEqual([
      "first",
      [
        ["calculator", { expression: "1" }],
        ["clock", {}],
      ],
    ]);
    const result = (callId: string): Message => ({
      role: "tool",
      callId,
      tool: "clock",
      outcome: { type: "value", value: { time: "noon" } },
    });
    const round: Message = { role: "assistant", text: "first", toolCalls: [] };
    const second = await say([script, round, result("a"), result("b")]);
    expect([text(second), calls(second)]).toEqual(["then", [["clock", {}]]]);
    expect(text(await say([script, round, result("a"), round, result("b")]))).toBe("clock says: noon");
  });

  test("gives an example of a schema that is asked for", async () => {
    const schema = { type: "object", properties: { n: { type: "integer", minimum: 3 }, kind: { enum: ["a", "b"] } } };
    expect(JSON.parse(text(await say([user("go")], schema)))).toEqual({ n: 3, kind: "a" });
  });

  test("fails when the script says so", async () => {
    await expect(say([user("fail out of order")])).rejects.toThrow("out of order");
  });
});
