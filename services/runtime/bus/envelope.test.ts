import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { RunChange, RunChangedSchema } from "@cadre/gen/cadre/events/v1/run_pb";
import { TurnChange, type TurnChanged, TurnChangedSchema } from "@cadre/gen/cadre/events/v1/turn_pb";
import { describe, expect, test } from "vitest";
import type { FailureReason } from "../errors/app-error.ts";
import { newId } from "../ids/id.ts";
import { createEventCodec, envelopeHeader, eventIdOf } from "./envelope.ts";
import type { BusEvent } from "./event-bus.ts";
import { createLocalSchemaIds } from "./schema-ids.ts";
import { agentRuns, conversationTurns } from "./topics.ts";

const traceparent = `00-${"4b".repeat(16)}-${"00f0".repeat(4)}-01`;
const codec = createEventCodec(createLocalSchemaIds());

function encodeRun(): Promise<BusEvent> {
  const { metadata } = turnChanged();
  const fact = create(RunChangedSchema, { metadata, runId: newId("run"), change: RunChange.STARTED });
  return codec.encode(agentRuns, fact, { orgId: metadata?.orgId ?? "" });
}

function turnChanged(): TurnChanged {
  return create(TurnChangedSchema, {
    metadata: {
      eventId: newId("evt"),
      seq: 3n,
      at: timestampFromMs(1_700_000_000_000),
      orgId: newId("org"),
      requestId: newId("req"),
    },
    sessionId: newId("ses"),
    turnId: newId("run"),
    change: TurnChange.STARTED,
  });
}

function orgOf({ metadata }: TurnChanged): string {
  return metadata?.orgId ?? "";
}

function encode(fact = turnChanged()): Promise<BusEvent> {
  return codec.encode(conversationTurns, fact, { orgId: orgOf(fact) });
}

/** The same event with another schema id in its frame. */
function withSchemaId(event: BusEvent, id: number): BusEvent {
  const value = Uint8Array.from(event.value);
  new DataView(value.buffer).setInt32(1, id);
  return { ...event, value };
}

test("an event carries the fact, its key and its envelope, and gives the fact back", async () => {
  const fact = turnChanged();
  const event = await codec.encode(conversationTurns, fact, { orgId: orgOf(fact), traceparent });
  expect(event.topic).toBe("conversation.turns.v1");
  expect(event.key).toBe(`${fact.metadata?.orgId}:${fact.sessionId}`);
  expect(eventIdOf(event)).toBe(fact.metadata?.eventId);
  expect(event.headers).toMatchObject({
    [envelopeHeader.eventType]: "cadre.events.v1.TurnChanged",
    [envelopeHeader.traceparent]: traceparent,
    [envelopeHeader.requestId]: fact.metadata?.requestId,
    [envelopeHeader.contentType]: "application/vnd.confluent.protobuf",
  });
  expect(await codec.decode(conversationTurns, event)).toEqual(fact);
});

test("an event of another build's schema is read by its place and type", async () => {
  const event = withSchemaId(await encode(), 9);
  const headers = { ...event.headers, [envelopeHeader.schemaId]: "9" };
  await codec.decode(conversationTurns, { ...event, headers });
  const other = { ...headers, [envelopeHeader.eventType]: "cadre.events.v1.Other" };
  await expect(codec.decode(conversationTurns, { ...event, headers: other })).rejects.toMatchObject({
    reason: "SCHEMA_MISMATCH",
  });
});

describe("what is no event of the topic is told apart", () => {
  test.each<[string, FailureReason, (event: BusEvent) => BusEvent | Promise<BusEvent>]>([
    ["random bytes", "MALFORMED_MESSAGE", (event) => ({ ...event, value: Buffer.from("b3f1a09c77e2", "hex") })],
    [
      "another magic byte",
      "MALFORMED_MESSAGE",
      (event) => ({ ...event, value: Buffer.concat([Buffer.of(1), event.value.subarray(1)]) }),
    ],
    ["a message that is cut", "MALFORMED_MESSAGE", (event) => ({ ...event, value: event.value.subarray(0, -3) })],
    ["an id that nobody knows", "SCHEMA_UNKNOWN", (event) => withSchemaId(event, 9)],
    [
      "another message of the same file",
      "SCHEMA_MISMATCH",
      (event) => ({ ...event, value: Buffer.concat([event.value.subarray(0, 5), Buffer.of(0)]) }),
    ],
    [
      "a message of another subject",
      "SCHEMA_MISMATCH",
      async (event) => ({ ...event, value: (await encodeRun()).value }),
    ],
    [
      "another event's envelope",
      "MALFORMED_MESSAGE",
      (event) => ({ ...event, headers: { ...event.headers, [envelopeHeader.eventId]: newId("evt") } }),
    ],
  ])("%s: %s", async (_what, reason, change) => {
    const event = await change(await encode());
    await expect(codec.decode(conversationTurns, event)).rejects.toMatchObject({ reason });
  });

  test("where a registry knows every id, the envelope is no reason to believe another", async () => {
    const ids = createLocalSchemaIds();
    const strict = createEventCodec(ids, { knowsAllIds: true });
    const fact = turnChanged();
    const event = await strict.encode(conversationTurns, fact, { orgId: orgOf(fact) });
    expect(await strict.decode(conversationTurns, event)).toEqual(fact);
    const headers = { ...event.headers, [envelopeHeader.schemaId]: "9" };
    await expect(strict.decode(conversationTurns, { ...withSchemaId(event, 9), headers })).rejects.toMatchObject({
      reason: "SCHEMA_UNKNOWN",
    });
  });
});

test("an event whose key, envelope and fact name different orgs is refused", async () => {
  const event = await encode();
  const foreign = newId("org");
  const headers = { ...event.headers, [envelopeHeader.orgId]: foreign };
  for (const forged of [
    { ...event, key: `${foreign}:x` },
    { ...event, headers },
  ]) {
    await expect(codec.decode(conversationTurns, forged)).rejects.toMatchObject({ reason: "TENANT_MISMATCH" });
  }
});

test("local schema ids are the same in every process, and differ by file", async () => {
  const [one, two] = [createLocalSchemaIds(), createLocalSchemaIds()];
  const { file } = TurnChangedSchema;
  const id = await one.idOf("conversation.turns.v1-value", file);
  expect(await two.idOf("conversation.turns.v1-value", file)).toBe(id);
  expect(await one.fileOf(id)).toBe(file);
  expect(await one.idOf("agent.runs.v1-value", RunChangedSchema.file)).not.toBe(id);
  await expect(one.idOf("agent.runs.v1-value", file)).rejects.toMatchObject({ reason: "SCHEMA_NOT_REGISTERED" });
});
