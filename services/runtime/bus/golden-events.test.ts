import { readFileSync } from "node:fs";
import { fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { assertMessage } from "./fact-rules.ts";
import { topics } from "./topics.ts";
import { decodeMessage, decodeWire, encodeWire, messageIndexesOf } from "./wire-codec.ts";

/** An event as it is on its topic: consumers of other builds and languages have such frames. A vector never changes. */
interface EventVector {
  readonly topic: string;
  readonly message: string;
  readonly event: JsonValue;
  readonly frame: string;
}

const vectors = JSON.parse(
  readFileSync(new URL("../../../test/vectors/events.json", import.meta.url), "utf8"),
) as readonly EventVector[];

test("each topic has a vector of the message that it carries", () => {
  expect(vectors.map(({ topic, message }) => [topic, message]).sort()).toEqual(
    topics.map(({ name, message }) => [name, message.typeName]).sort(),
  );
});

test.each(vectors)("$topic: the golden bytes are what is written, and are read as what was meant", (vector) => {
  const topic = topics.find(({ name }) => name === vector.topic);
  if (topic === undefined) throw new Error(`there is no topic ${vector.topic}`);
  const { message } = topic;
  const event = fromJson(message, vector.event);
  assertMessage(vector.topic, message, event);
  expect(Buffer.from(encodeWire(7, message, event)).toString("hex")).toBe(vector.frame);
  const { schemaId, messageIndexes, bytes } = decodeWire(Buffer.from(vector.frame, "hex"));
  expect([schemaId, messageIndexes]).toEqual([7, messageIndexesOf(message)]);
  expect(toJson(message, decodeMessage(message, bytes), { useProtoFieldName: true })).toEqual(vector.event);
});
