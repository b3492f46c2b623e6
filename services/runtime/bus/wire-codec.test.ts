import { create } from "@bufbuild/protobuf";
import {
  DescriptorProto_ExtensionRangeSchema,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  file_google_protobuf_descriptor,
} from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AppError } from "../errors/app-error.ts";
import { decodeMessage, decodeWire, encodeWire, messageAt, messageIndexesOf } from "./wire-codec.ts";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

describe("golden vectors", () => {
  // google/protobuf/descriptor.proto declares FileDescriptorSet, FileDescriptorProto and DescriptorProto in this
  // order, and ExtensionRange first within the last.
  test("the first message of a file is a single zero", () => {
    const encoded = encodeWire(1, FileDescriptorSetSchema, create(FileDescriptorSetSchema));
    expect(hex(encoded)).toBe("00" + "00000001" + "00");
  });

  test("the second message is a count of one and an index of one, in zigzag", () => {
    const message = create(FileDescriptorProtoSchema, { name: "a" });
    const encoded = encodeWire(0x01020304, FileDescriptorProtoSchema, message);
    expect(hex(encoded)).toBe("00" + "01020304" + "0202" + "0a0161");
  });

  test("a nested message has an index for each level", () => {
    const message = create(DescriptorProto_ExtensionRangeSchema, { start: 1 });
    const encoded = encodeWire(0x7fffffff, DescriptorProto_ExtensionRangeSchema, message);
    expect(hex(encoded)).toBe("00" + "7fffffff" + "040400" + "0801");
  });

  test("the long form of the first message is understood as well", () => {
    expect(decodeWire(Buffer.from("00" + "00000001" + "0200" + "0a0161", "hex"))).toMatchObject({
      schemaId: 1,
      messageIndexes: [0],
    });
  });
});

test("every message of a file is found again by its indexes", () => {
  const all = [...file_google_protobuf_descriptor.messages];
  for (const message of all) all.push(...message.nestedMessages);
  // An empty message of this one has no encoding: it has required fields.
  all.splice(
    all.findIndex(({ name }) => name === "NamePart"),
    1,
  );
  expect(all.length).toBeGreaterThan(25);
  for (const message of all) {
    const encoded = encodeWire(7, message, create(message));
    const { schemaId, messageIndexes } = decodeWire(encoded);
    expect(schemaId).toBe(7);
    expect(messageIndexes).toEqual(messageIndexesOf(message));
    expect(messageAt(file_google_protobuf_descriptor, messageIndexes)).toBe(message);
  }
  expect(messageAt(file_google_protobuf_descriptor, [999])).toBeUndefined();
});

describe("what is not in the format", () => {
  test.each([
    ["nothing", ""],
    ["another magic byte", "0100000001000a0161"],
    ["no indexes", "0000000001"],
    ["a negative schema id", "008000000000"],
    ["a negative count", "000000000101"],
    ["a negative index", "00000000010201"],
    ["more levels than anybody nests", `0000000001${"c801"}`],
    ["an index past 32 bits", "000000000102ffffffff7f"],
    ["an index without an end", "000000000102ffffff"],
  ])("%s is refused", (_name, bytes) => {
    expect(() => decodeWire(Buffer.from(bytes, "hex"))).toThrow(AppError);
  });

  test("whatever bytes, it is decoded or refused as malformed", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        try {
          decodeMessage(FileDescriptorProtoSchema, decodeWire(bytes).bytes);
        } catch (error) {
          expect(error).toMatchObject({ reason: "MALFORMED_MESSAGE" });
        }
      }),
      { numRuns: 2_000 },
    );
  });
});
