import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { TurnChange, type TurnChanged, TurnChangedSchema } from "@cadre/gen/cadre/events/v1/turn_pb";
import { expect, test } from "vitest";
import { newId } from "../ids/id.ts";
import { createEventCodec, envelopeHeader, eventIdOf } from "./envelope.ts";
import { createLocalSchemaIds } from "./schema-ids.ts";
import { conversationTurns } from "./topics.ts";

const codec = createEventCodec(createLocalSchemaIds());

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

test("an event carries the fact, its key and its envelope, and gives the fact back", async () => {
  const fact = turnChanged();
  const event = await codec.encode(conversationTurns, fact, "00-1-2-01");
  expect(event.topic).toBe("conversation.turns.v1");
  expect(event.key).toBe(`${fact.metadata?.orgId}:${fact.sessionId}`);
  expect(eventIdOf(event)).toBe(fact.metadata?.eventId);
  expect(event.headers).toMatchObject({
    [envelopeHeader.eventType]: "cadre.events.v1.TurnChanged",
    [envelopeHeader.traceparent]: "00-1-2-01",
    [envelopeHeader.requestId]: fact.metadata?.requestId,
    [envelopeHeader.contentType]: "application/vnd.confluent.protobuf",
  });
  expect(await codec.decode(conversationTurns, event)).toEqual(fact);
});

test("an event of another build's schema is read by its place and type", async () => {
  const event = await codec.encode(conversationTurns, turnChanged());
  const value = Uint8Array.from(event.value);
  value.set([0, 0, 0, 9], 1);
  await codec.decode(conversationTurns, { ...event, value });
  const headers = { ...event.headers, [envelopeHeader.eventType]: "cadre.events.v1.Other" };
  await expect(codec.decode(conversationTurns, { ...event, value, headers })).rejects.toMatchObject({
    reason: "MALFORMED_MESSAGE",
  });
});

test("another message of the same file is refused, never read as an empty one", async () => {
  const event = await codec.encode(conversationTurns, turnChanged());
  const value = Buffer.concat([event.value.subarray(0, 5), Buffer.from([0])]);
  await expect(codec.decode(conversationTurns, { ...event, value })).rejects.toMatchObject({
    reason: "MALFORMED_MESSAGE",
  });
});

test("an event whose key, envelope and fact name different orgs is refused", async () => {
  const event = await codec.encode(conversationTurns, turnChanged());
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
  const file = TurnChangedSchema.file;
  const id = await one.idOf("a", file);
  expect(await two.idOf("b", file)).toBe(id);
  expect(await one.fileOf(id)).toBe(file);
  const dependency = file.dependencies[0];
  if (dependency === undefined) throw new Error("the file imports something");
  expect(await one.idOf("a", dependency)).not.toBe(id);
});
