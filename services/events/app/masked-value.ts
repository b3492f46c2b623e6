import { type DescMessage, fromBinary, getOption, type JsonObject, type Message, toJson } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { Sensitivity, sensitivity } from "@cadre/gen/cadre/options/v1/options_pb";
import type { BusEvent } from "../../runtime/bus/event-bus.ts";
import { topics } from "../../runtime/bus/topics.ts";
import { decodeWire } from "../../runtime/bus/wire-codec.ts";

/**
 * The message of an event as JSON, without the values of fields that the
 * contract declares sensitive. Undefined if the bytes are no message of the
 * topic's type.
 */
export function maskedValue({ topic, value }: BusEvent): JsonObject | undefined {
  const schema = topics.find(({ name }) => name === topic)?.message;
  if (schema === undefined) return undefined;
  try {
    return maskedJson(schema, fromBinary(schema, decodeWire(value).bytes));
  } catch {
    // That it cannot be read is what it became a dead letter for.
    return undefined;
  }
}

/** A message as JSON, sensitive fields left out. Changes the message. */
export function maskedJson(schema: DescMessage, message: Message): JsonObject {
  clearSensitive(reflect(schema, message));
  return toJson(schema, message) as JsonObject;
}

function clearSensitive(message: ReflectMessage): void {
  for (const field of message.fields) {
    if (!message.isSet(field)) continue;
    if (getOption(field, sensitivity) !== Sensitivity.UNSPECIFIED) {
      message.clear(field);
    } else if (field.fieldKind === "message") {
      clearSensitive(message.get(field));
    } else if (field.fieldKind === "list" && field.listKind === "message") {
      for (const item of message.get(field)) clearSensitive(item as ReflectMessage);
    } else if (field.fieldKind === "map" && field.mapKind === "message") {
      for (const item of message.get(field).values()) clearSensitive(item as ReflectMessage);
    }
  }
}
