import { inspect, isDeepStrictEqual } from "node:util";
import {
  create,
  createFileRegistry,
  type DescField,
  type DescMessage,
  type Message,
  type MessageInitShape,
  ScalarType,
} from "@bufbuild/protobuf";
import {
  type FieldDescriptorProto,
  FieldDescriptorProtoSchema,
  FileDescriptorProtoSchema,
  file_google_protobuf_struct,
  file_google_protobuf_wrappers,
  FieldDescriptorProto_Label as Label,
  OneofDescriptorProtoSchema,
  StructSchema,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { ExecuteToolRequestSchema } from "@cadre/gen/cadre/tools/v1/tool_pb";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { contract, contractMessages } from "../../../test/support/contract-messages.ts";
import { decodeMessage, encodeMessage } from "../rpc/message-codec.ts";
import { memoryCodec } from "./memory-codec.ts";
import { copyMessage } from "./message-copy.ts";

const maxBytes = 4 * 1024 * 1024;

/** A message with a field of every kind, also of those that our contracts do not use. */
const everything = everyKind();

function everyKind(): DescMessage {
  const scalars = Object.values(Type).filter(
    (type): type is Type => typeof type === "number" && ![Type.GROUP, Type.MESSAGE, Type.ENUM].includes(type),
  );
  const fields: FieldDescriptorProto[] = [];
  const add = (name: string, field: MessageInitShape<typeof FieldDescriptorProtoSchema>): void => {
    // Numbers whose tags have one byte, two and three.
    const number = fields.length + (fields.length < 12 ? 1 : fields.length < 40 ? 100 : 3_000);
    fields.push(create(FieldDescriptorProtoSchema, { name, number, label: Label.OPTIONAL, ...field }));
  };
  for (const type of scalars) {
    add(`single_${type}`, { type });
    add(`list_${type}`, { type, label: Label.REPEATED });
    add(`chosen_${type}`, { type, oneofIndex: 0 });
  }
  for (const name of ["Struct", "Value", "ListValue", "StringValue", "BytesValue"]) {
    const field = { type: Type.MESSAGE, typeName: `.google.protobuf.${name}` };
    add(`single_${name}`, field);
    add(`list_${name}`, { ...field, label: Label.REPEATED });
    add(`chosen_${name}`, { ...field, oneofIndex: 0 });
  }
  add("itself", { type: Type.MESSAGE, typeName: ".test.Everything" });
  const file = create(FileDescriptorProtoSchema, {
    name: "everything.proto",
    package: "test",
    syntax: "proto3",
    dependency: ["google/protobuf/struct.proto", "google/protobuf/wrappers.proto"],
    messageType: [
      { name: "Everything", field: fields, oneofDecl: [create(OneofDescriptorProtoSchema, { name: "chosen" })] },
    ],
  });
  const known = [file_google_protobuf_struct, file_google_protobuf_wrappers];
  const registry = createFileRegistry(file, (name) => known.find((each) => `${each.name}.proto` === name));
  const schema = registry.getMessage("test.Everything");
  if (schema === undefined) throw new Error("the test's message was not made");
  return schema;
}

/** What a value of a field may be: in order, or out of it in any way. */
interface Values {
  scalar(type: ScalarType): fc.Arbitrary<unknown>;
  readonly enumeration: fc.Arbitrary<unknown>;
  readonly json: fc.Arbitrary<unknown>;
}

const int64 = fc.oneof(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.constantFrom(0n, 127n, 128n, -1n));
const uint64 = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  ...Array.from({ length: 10 }, (_, size) => fc.constantFrom(2n ** BigInt(7 * size), 2n ** BigInt(7 * size) - 1n)),
);
const text = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 200 }),
  fc.constantFrom("", "x".repeat(127), "é".repeat(64)),
);
const key = fc.oneof(fc.string({ maxLength: 5 }), fc.constantFrom("2", "1", "constructor", "toString"));

const regular: Values = {
  scalar(type) {
    switch (type) {
      case ScalarType.STRING:
        return text;
      case ScalarType.BYTES:
        return fc.oneof(fc.uint8Array({ maxLength: 200 }), fc.constant(Buffer.from("a buffer")));
      case ScalarType.BOOL:
        return fc.boolean();
      case ScalarType.DOUBLE:
        return fc.double();
      case ScalarType.FLOAT:
        return fc.float({ noNaN: true });
      case ScalarType.INT32:
      case ScalarType.SINT32:
      case ScalarType.SFIXED32:
        return fc.oneof(fc.integer(), fc.constantFrom(0, 127, 128, -1));
      case ScalarType.UINT32:
      case ScalarType.FIXED32:
        return fc.oneof(fc.nat({ max: 0xffffffff }), fc.constantFrom(0, 127, 128, 0xffffffff));
      case ScalarType.UINT64:
      case ScalarType.FIXED64:
        return uint64;
      default:
        return int64;
    }
  },
  enumeration: fc.oneof(fc.constantFrom(0, 1, 2, 99, -1), fc.integer()),
  json: fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 4, depthSize: "small" },
      fc.constant(null),
      fc.boolean(),
      fc.double(),
      text,
      fc.array(tie("value"), { maxLength: 3 }),
      fc.dictionary(key, tie("value"), { maxKeys: 3 }),
    ),
  })).value,
};

const anything = fc.anything({
  withBigInt: true,
  withTypedArray: true,
  withDate: true,
  withSparseArray: true,
  maxDepth: 2,
});
const disorder = fc.oneof(
  anything,
  fc.constantFrom("\ud800", -0, Number.NaN, 2 ** 32, 0.5, 2n ** 64n, -1n, "5", null, undefined, { ["__proto__"]: 1 }),
);

const irregular: Values = {
  scalar: (type) => fc.oneof({ weight: 12, arbitrary: regular.scalar(type) }, { weight: 1, arbitrary: disorder }),
  enumeration: fc.oneof({ weight: 12, arbitrary: regular.enumeration }, { weight: 1, arbitrary: disorder }),
  json: fc.oneof({ weight: 6, arbitrary: regular.json }, { weight: 1, arbitrary: disorder }),
};

function messageOf(schema: DescMessage, values: Values, depth: number): fc.Arbitrary<Message> {
  if (depth === 0) return fc.constant(create(schema));
  const members = schema.members.map((member) => {
    if (member.kind !== "oneof") {
      const value = valueOf(member, values, depth);
      const mayBeAbsent = member.fieldKind === "message" || member.proto.proto3Optional;
      return [member.localName, mayBeAbsent ? fc.option(value, { nil: undefined }) : value] as const;
    }
    const cases = member.fields.map((field) =>
      valueOf(field, values, depth).map((value) => ({ case: field.localName, value })),
    );
    return [member.localName, fc.oneof(fc.constant({ case: undefined }), ...cases)] as const;
  });
  return fc.record(Object.fromEntries(members)).map((fields) => Object.assign(create(schema), fields));
}

function valueOf(field: DescField, values: Values, depth: number): fc.Arbitrary<unknown> {
  const single = (): fc.Arbitrary<unknown> => {
    if (field.message !== undefined) {
      const isJson =
        field.message.typeName === StructSchema.typeName && field.parent.typeName !== "google.protobuf.Value";
      if (isJson) return fc.dictionary(key, values.json, { maxKeys: 3 });
      return messageOf(field.message, values, depth - 1);
    }
    return field.enum === undefined ? values.scalar(field.scalar ?? ScalarType.STRING) : values.enumeration;
  };
  switch (field.fieldKind) {
    case "list":
      return fc.array(single(), { maxLength: 3 });
    case "map":
      return fc.dictionary(key, single(), { maxKeys: 2, noNullPrototype: true });
    default:
      return single();
  }
}

/** What a message is after it crossed, or why it did not. */
function outcome(cross: () => Message): unknown {
  try {
    return { message: cross() };
  } catch (thrown) {
    return { thrown: thrown instanceof Error ? thrown.message : thrown };
  }
}

function handedOver(schema: DescMessage, message: Message, limit = maxBytes): unknown {
  return outcome(() => memoryCodec.unpack(schema, memoryCodec.pack(schema, message, limit), limit));
}

function overWire(schema: DescMessage, message: Message, limit = maxBytes): unknown {
  return outcome(() => decodeMessage(schema, encodeMessage(schema, message, limit), limit));
}

/** Not by `toStrictEqual`, which takes a field that is named `constructor` for the class. */
function assertSame(schema: DescMessage, message: Message): void {
  const [handed, wired] = [handedOver(schema, message), overWire(schema, message)];
  if (!isDeepStrictEqual(handed, wired)) throw new Error(inspect({ handed, wired }, { depth: 20 }));
}

describe.each([...contractMessages, everything].map((schema) => [schema.typeName, schema] as const))(
  "%s",
  (_, schema) => {
    test("a regular message is copied, and is what it would be over a wire", () => {
      fc.assert(
        fc.property(messageOf(schema, regular, 3), (message) => {
          const copy = copyMessage(schema, message);
          if (schema !== everything) expect(copy).toBeDefined();
          if (copy !== undefined) expect(copy.byteLength).toBe(encodeMessage(schema, message, maxBytes).byteLength);
          assertSame(schema, message);
        }),
        { numRuns: schema === everything ? 500 : 30 },
      );
    });

    test("what is not regular is what it would be over a wire, or fails in the same way", () => {
      fc.assert(
        fc.property(messageOf(schema, irregular, 3), (message) => {
          assertSame(schema, message);
        }),
        { numRuns: schema === everything ? 500 : 30 },
      );
    });
  },
);

test("each field of every kind by itself is what it would be over a wire", () => {
  for (const field of everything.fields) {
    const wrap = (value: unknown): Message =>
      Object.assign(
        create(everything),
        field.oneof === undefined
          ? { [field.localName]: value }
          : { [field.oneof.localName]: { case: field.localName, value } },
      );
    fc.assert(
      fc.property(valueOf(field, irregular, 3), (value) => {
        const message = wrap(value);
        assertSame(everything, message);
      }),
      { numRuns: 200 },
    );
  }
});

test("a copy shares nothing with what was sent", () => {
  const message = create(ExecuteToolRequestSchema, { toolId: "tool", arguments: { list: [{ deep: 1 }] } });
  const packed = memoryCodec.pack(ExecuteToolRequestSchema, message, maxBytes);
  const before = structuredClone(message);
  message.toolId = "another";
  (message.arguments as { list: { deep: number }[] }).list[0] = { deep: 2 };
  expect(memoryCodec.unpack(ExecuteToolRequestSchema, packed, maxBytes)).toStrictEqual(before);
});

test("the limit holds to the byte, whatever the text is made of", () => {
  for (const character of ["a", "é", "💥"]) {
    const message = create(ExecuteToolRequestSchema, { toolId: character.repeat(300) });
    const { byteLength } = encodeMessage(ExecuteToolRequestSchema, message, maxBytes);
    expect(handedOver(ExecuteToolRequestSchema, message, byteLength)).toStrictEqual({ message });
    expect(handedOver(ExecuteToolRequestSchema, message, byteLength - 1)).toStrictEqual({
      thrown: `a cadre.tools.v1.ExecuteToolRequest may have at most ${byteLength - 1} bytes`,
    });
  }
});

test("a message is nested as deeply as over a wire, and no deeper", () => {
  for (let depth = 1; depth < 120; depth += 1) {
    let message = create(everything);
    for (let level = 1; level < depth; level += 1) message = create(everything, { itself: message } as never);
    assertSame(everything, message);
    let json: unknown = 1;
    for (let level = 1; level < depth; level += 1) json = level % 2 === 0 ? [json] : { json };
    const called = create(ExecuteToolRequestSchema, { arguments: { json } as never });
    assertSame(ExecuteToolRequestSchema, called);
  }
});

test("fields that the contract does not know are kept", () => {
  const message = create(ExecuteToolRequestSchema, { toolId: "tool" });
  message.$unknown = [{ no: 999, wireType: 0, data: new Uint8Array([5]) }];
  assertSame(ExecuteToolRequestSchema, message);
});

test("a receiver that knows the contract from elsewhere reads what it knows", () => {
  const elsewhere = contract.getMessage(ExecuteToolRequestSchema.typeName);
  if (elsewhere === undefined) throw new Error("the contract has no such message");
  const message = create(ExecuteToolRequestSchema, { toolId: "tool", epoch: 5n });
  const packed = memoryCodec.pack(ExecuteToolRequestSchema, message, maxBytes);
  expect(memoryCodec.unpack(elsewhere, packed, maxBytes)).toStrictEqual(message);
});
