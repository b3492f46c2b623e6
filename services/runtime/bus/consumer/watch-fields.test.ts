import {
  clearField,
  clone,
  create,
  type DescMessage,
  equals,
  fromBinary,
  isFieldSet,
  isMessage,
  type Message,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import {
  FileDescriptorProtoSchema,
  ListValueSchema,
  type Struct,
  StructSchema,
  ValueSchema,
} from "@bufbuild/protobuf/wkt";
import { RunChangedSchema, StepChange, StepChangedSchema, StepKind } from "@cadre/gen/cadre/events/v1/run_pb";
import { EventMetadataSchema } from "@cadre/gen/cadre/events/v1/turn_pb";
import { expect, test } from "vitest";
import { watchFields } from "./watch-fields.ts";

const metadata = create(EventMetadataSchema, { eventId: "evt_x", seq: 7n });
const text = create(ValueSchema, { kind: { case: "stringValue", value: "x" } });
const nested = create(StructSchema, {
  fields: {
    list: create(ValueSchema, { kind: { case: "listValue", value: create(ListValueSchema, { values: [text] }) } }),
    text,
  },
});
const step = create(StepChangedSchema, { metadata, kind: StepKind.TOOL, change: StepChange.FAILED, index: 0 });

/** Messages of all kinds of fields: absent and optional ones, lists, maps, oneofs, bytes, proto2 with defaults. */
const samples: readonly (readonly [string, DescMessage, Message])[] = [
  ["optional and absent fields", StepChangedSchema, step],
  ["nothing at all", StepChangedSchema, create(StepChangedSchema)],
  ["a value within", RunChangedSchema, create(RunChangedSchema, { metadata, output: text })],
  ["maps, lists and oneofs", StructSchema, nested],
  ["proto2", FileDescriptorProtoSchema, FileDescriptorProtoSchema.file.proto],
];

function watched(schema: DescMessage, message: Message): { readonly twin: Message; readonly read: string[] } {
  const twin = fromBinary(schema, toBinary(schema, message));
  const read: string[] = [];
  watchFields(schema, twin, ({ parent, name }) => read.push(`${parent.name}.${name}`));
  return { twin, read };
}

test.each(samples)("%s: a message that is watched is the same to everything that takes one", (_, schema, sample) => {
  const message = fromBinary(schema, toBinary(schema, sample));
  const twin = () => watched(schema, message).twin;
  expect(isMessage(twin(), schema)).toBe(true);
  expect(toBinary(schema, twin())).toEqual(toBinary(schema, message));
  expect(toJson(schema, twin())).toEqual(toJson(schema, message));
  expect(equals(schema, twin(), message)).toBe(true);
  expect(toBinary(schema, clone(schema, twin()))).toEqual(toBinary(schema, message));
  const same = twin();
  expect(create(schema, same)).toBe(same);
  expect(structuredClone(twin())).toEqual(structuredClone(message));
  expect(Object.keys(twin())).toEqual(Object.keys(message));
  expect({ ...twin() }).toEqual({ ...message });
  const asText = (value: Message) =>
    JSON.stringify(value, (_key, part) => (typeof part === "bigint" ? `${part}` : part));
  expect(asText(twin())).toBe(asText(message));
  for (const field of schema.fields) expect(isFieldSet(twin(), field)).toBe(isFieldSet(message, field));
});

test("each field is told once that is read, within messages too, also where it is absent", () => {
  const { twin, read } = watched(StepChangedSchema, step);
  const fact = twin as typeof step;
  expect([fact.metadata?.eventId, fact.metadata?.eventId, fact.name, fact.index]).toEqual(["evt_x", "evt_x", "", 0]);
  expect(read).toEqual(["StepChanged.metadata", "EventMetadata.event_id", "StepChanged.name", "StepChanged.index"]);

  const without = watched(StepChangedSchema, create(StepChangedSchema));
  expect((without.twin as typeof step).index).toBeUndefined();
  expect((without.twin as typeof step).metadata?.eventId).toBeUndefined();
  expect(without.read).toEqual(["StepChanged.index", "StepChanged.metadata"]);

  const struct = watched(StructSchema, nested);
  const { kind } = (struct.twin as Struct).fields["text"] ?? {};
  expect(kind?.case === "stringValue" && kind.value).toBe("x");
  expect(struct.read).toEqual(["Struct.fields", "Value.string_value", "Value.string_value"]);
});

test("what a handler changes is changed, and is no read", () => {
  const { twin, read } = watched(StepChangedSchema, step);
  const fact = twin as typeof step;
  fact.name = "other";
  fact.index = 3;
  const other = create(StepChangedSchema, { ...step, name: "other", index: 3 });
  expect(read).toEqual([]);
  expect(toBinary(StepChangedSchema, fact)).toEqual(toBinary(StepChangedSchema, other));
  clearField(fact, StepChangedSchema.field.index);
  expect(fact.index).toBeUndefined();
  const absent = watched(StepChangedSchema, create(StepChangedSchema)).twin as typeof step;
  absent.index = 1;
  expect(Object.keys(absent)).toContain("index");
});
