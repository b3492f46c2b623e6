import { create, createFileRegistry, createMutableRegistry, type DescMessage } from "@bufbuild/protobuf";
import {
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import {
  ProtobufDeserializer,
  ProtobufSerializer,
  SchemaRegistryClient,
  SerdeType,
} from "@confluentinc/schemaregistry";
import { beforeAll, expect, test } from "vitest";
import {
  decodeMessage,
  decodeWire,
  encodeWire,
  messageAt,
  messageIndexesOf,
} from "../../services/runtime/bus/wire-codec.ts";

// Confluent's own serializer for JavaScript, over its registry in memory,
// beside our codec: each reads the other's frames, and they are the same.

const field = { name: "text", number: 1, type: Type.STRING, label: Label.OPTIONAL, jsonName: "text" };
const declared = create(FileDescriptorProtoSchema, {
  name: "sample/v1/sample.proto",
  package: "sample.v1",
  syntax: "proto3",
  messageType: [
    { name: "First", field: [field] },
    { name: "Second", field: [field], nestedType: [{ name: "Other" }, { name: "Nested", field: [field] }] },
  ],
});
const file = createFileRegistry(create(FileDescriptorSetSchema, { file: [declared] })).getFile(declared.name);
const client = SchemaRegistryClient.newClient({ baseURLs: ["mock://"] });
const topic = "sample.v1";

function message(name: string): DescMessage {
  const all = file?.messages.flatMap((one) => [one, ...one.nestedMessages]) ?? [];
  const found = all.find(({ typeName }) => typeName === `sample.v1.${name}`);
  if (found === undefined) throw new Error(`no message ${name}`);
  return found;
}

let serializer: ProtobufSerializer;
let deserializer: ProtobufDeserializer;
beforeAll(() => {
  const registry = createMutableRegistry(message("First"), message("Second"), message("Second.Nested"));
  serializer = new ProtobufSerializer(client, SerdeType.VALUE, { autoRegisterSchemas: true, registry });
  deserializer = new ProtobufDeserializer(client, SerdeType.VALUE, {});
});

test.each([
  ["the first message", "First", [0]],
  ["the second message", "Second", [1]],
  ["a nested message", "Second.Nested", [1, 1]],
])("%s: byte for byte the same, and read by either", async (_what, name, indexes) => {
  const schema = message(name);
  const value = create(schema, { text: "héllo" });
  const theirs = await serializer.serialize(topic, value);

  const { schemaId, messageIndexes, bytes } = decodeWire(theirs);
  expect(messageIndexes).toEqual(indexes);
  expect(messageIndexes).toEqual(messageIndexesOf(schema));
  expect(file === undefined ? undefined : messageAt(file, messageIndexes)).toBe(schema);
  expect(decodeMessage(schema, bytes)).toEqual(value);

  const ours = encodeWire(schemaId, schema, value);
  expect(Buffer.from(ours).toString("hex")).toBe(theirs.toString("hex"));
  expect(await deserializer.deserialize(topic, Buffer.from(ours))).toMatchObject({
    $typeName: `sample.v1.${name}`,
    text: "héllo",
  });
});

test("what their client refuses, ours refuses", async () => {
  const garbage = Buffer.from("01000000010068", "hex");
  await expect(deserializer.deserialize(topic, garbage)).rejects.toThrow();
  expect(() => decodeWire(garbage)).toThrow("no Confluent framing");
});
