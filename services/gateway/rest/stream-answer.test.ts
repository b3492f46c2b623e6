import { create, fromJson } from "@bufbuild/protobuf";
import { type SessionEvent, SessionEventSchema } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { SessionService, StreamEventsResponseSchema } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { CallToolResponseSchema, ToolService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import fc from "fast-check";
import { expect, test } from "vitest";
import { toErrorAnswer } from "../../runtime/edge/error-body.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import { type Route, routesOf } from "./route.ts";
import { streamFormat } from "./stream-answer.ts";

function routeOf(services: Parameters<typeof routesOf>[0], name: string): Route {
  const route = routesOf(services).find((candidate) => candidate.method.name === name);
  if (route === undefined) throw new TypeError(`no route of ${name}`);
  return route;
}

const events = routeOf([SessionService], "StreamEvents");
const call = routeOf([ToolService], "CallTool");

function withText(seq: bigint, text: string): SessionEvent {
  return create(SessionEventSchema, { seq, body: { case: "textDelta", value: { text } } });
}

/** A reader by the letter of the specification: any of three line ends, one blank line ends an event. */
function read(stream: string): { id: string; event: string; data: string }[] {
  const received: { id: string; event: string; data: string }[] = [];
  let id = "";
  let event = "";
  let data: string[] = [];
  for (const line of stream.split(/\r\n|\r|\n/)) {
    if (line === "") {
      if (data.length > 0) received.push({ id, event, data: data.join("\n") });
      event = "";
      data = [];
      continue;
    }
    const colon = line.indexOf(":");
    const [name, value] = colon === -1 ? [line, ""] : [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
    if (name === "id") id = value;
    if (name === "event") event = value;
    if (name === "data") data.push(value);
  }
  return received;
}

test("whatever the text, cut wherever it may be, an event arrives as it was", () => {
  const { start, message } = streamFormat(events, "");
  const text = fc.string({
    unit: fc.constantFrom("\n", "\r", "data: x", "\u2028", "🧑‍🚀", "é", "\0", ":", "a"),
    maxLength: 20,
  });
  fc.assert(
    fc.property(fc.array(text, { maxLength: 5 }), fc.nat(), (texts, cut) => {
      const sent = texts.map((line, index) => withText(BigInt(index + 1), line));
      const bytes = Buffer.from(
        start + sent.map((event) => message(create(StreamEventsResponseSchema, { event }))).join(""),
      );
      const decoder = new TextDecoder();
      const at = cut % (bytes.length + 1);
      const stream = decoder.decode(bytes.subarray(0, at), { stream: true }) + decoder.decode(bytes.subarray(at));
      const received = read(stream);
      expect(received.map(({ id, event }) => [id, event])).toEqual(sent.map(({ seq }) => [`${seq}`, "text.delta"]));
      expect(received.map(({ data }) => fromJson(SessionEventSchema, JSON.parse(data)))).toEqual(sent);
    }),
  );
});

test("a response without an event is a comment, which readers skip", () => {
  const { message, keepalive } = streamFormat(events, "*/*");
  expect(message(create(StreamEventsResponseSchema, {}))).toBe(": keepalive\n\n");
  expect(read(message(create(StreamEventsResponseSchema, {})) + keepalive)).toEqual([]);
});

test("an event of a kind that this build does not know keeps its number", () => {
  const { message } = streamFormat(events, "");
  const frame = message(create(StreamEventsResponseSchema, { event: create(SessionEventSchema, { seq: 9n }) }));
  expect(read(frame)).toMatchObject([{ id: "9", event: "" }]);
});

test("a failure is the last event, in the form of every failure", () => {
  const { body } = toErrorAnswer(new AppError("UNAVAILABLE", "gone\nfor good"), "req_1");
  const received = read(streamFormat(events, "").error(body));
  expect(received.map(({ event, data }) => [event, JSON.parse(data)])).toEqual([["error", body]]);
});

test.each([
  [events, "", "text/event-stream; charset=utf-8"],
  [events, "text/event-stream", "text/event-stream; charset=utf-8"],
  [events, "application/json", "text/event-stream; charset=utf-8"],
  [events, "application/x-ndjson", "application/x-ndjson; charset=utf-8"],
  [call, "", "application/x-ndjson; charset=utf-8"],
  [call, "text/event-stream", "text/event-stream; charset=utf-8"],
])("the format of a stream follows the route and what is asked for", (route, accept, contentType) => {
  expect(streamFormat(route, accept).contentType).toBe(contentType);
});

test("lines of JSON have a message each", () => {
  const { message, start, keepalive } = streamFormat(call, "");
  expect([start, keepalive]).toEqual(["", ""]);
  expect(message(create(CallToolResponseSchema, { part: { case: "output", value: "a\nb" } }))).toBe(
    '{"output":"a\\nb"}\n',
  );
});
