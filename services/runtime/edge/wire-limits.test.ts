import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  file_google_protobuf_descriptor,
  StructSchema,
  ValueSchema,
} from "@bufbuild/protobuf/wkt";
import { AgentSchema } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { SendTurnRequestSchema, SessionSchema } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AppError } from "../errors/app-error.ts";
import { assertMessageWithinLimits, wireLimits } from "./wire-limits.ts";

const schemas = [
  StructSchema,
  ValueSchema,
  FileDescriptorProtoSchema,
  SessionSchema,
  AgentSchema,
  SendTurnRequestSchema,
];

function isTaken(desc: Parameters<typeof assertMessageWithinLimits>[0], bytes: Uint8Array): boolean {
  try {
    assertMessageWithinLimits(desc, bytes);
    return true;
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    return false;
  }
}

const samples: readonly (readonly [Parameters<typeof assertMessageWithinLimits>[0], Uint8Array])[] = [
  [FileDescriptorProtoSchema, toBinary(FileDescriptorProtoSchema, file_google_protobuf_descriptor.proto)],
  [
    SessionSchema,
    toBinary(
      SessionSchema,
      create(SessionSchema, {
        sessionId: "ses_x",
        labels: { a: "b", "": "c" },
        lastSeq: 2n ** 63n,
        busy: true,
        createdAt: { seconds: -1n, nanos: 5 },
      }),
    ),
  ],
  [
    SendTurnRequestSchema,
    toBinary(
      SendTurnRequestSchema,
      create(SendTurnRequestSchema, { text: "tést", onBusy: 2, answerSchema: { a: [1, "b", null, { c: true }] } }),
    ),
  ],
];

test("whatever a writer writes is taken", () => {
  for (const [desc, bytes] of samples) expect(() => assertMessageWithinLimits(desc, bytes)).not.toThrow();
});

test("what is taken can be read: bytes at random", () => {
  fc.assert(
    fc.property(fc.constantFrom(...schemas), fc.uint8Array({ maxLength: 60 }), (desc, bytes) => {
      if (isTaken(desc, bytes)) expect(() => fromBinary(desc, bytes)).not.toThrow();
    }),
    { numRuns: 5_000 },
  );
});

test("what is taken can be read: good bytes with some changed, cut or repeated", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...samples),
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 3 }),
      fc.nat(),
      ([desc, original], changes, cut) => {
        const bytes = Uint8Array.from(original).subarray(0, original.length - (cut % 5));
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        if (isTaken(desc, bytes)) expect(() => fromBinary(desc, bytes)).not.toThrow();
      },
    ),
    { numRuns: 3_000 },
  );
});

describe("refusals name the field and nothing else", () => {
  test.each([
    ["0805", "the field session_id has the wrong wire type"],
    ["0a02c328", "the field session_id is not UTF-8"],
    ["22020a05", "the field answer_schema.fields is cut off"],
    ["22060a040a0161ff", "the field answer_schema.fields is cut off"],
    ["ffffff", "the message is cut off"],
    ["ffffffffff01", "the message has a number of too many bytes"],
    ["000a", "the message has field number 0"],
    ["0f", "the field session_id has the wrong wire type"],
    ["7f", "the message has an unknown wire type"],
    ["7b", "the message has a group without an end"],
    ["7c", "the message ends a group that did not begin"],
    ["7b84017c", "the message ends a group that did not begin"],
  ])("%s: %s", (hex, message) => {
    expect(() => assertMessageWithinLimits(SendTurnRequestSchema, Buffer.from(hex, "hex"))).toThrow(
      expect.objectContaining({ reason: "MALFORMED_MESSAGE", message }),
    );
  });
});

test("elements of packed fields count", () => {
  const path = Buffer.alloc(wireLimits.maxValues + 1, 1);
  const length = Buffer.from([0xa1, 0x8d, 0x06]);
  // FileDescriptorProto.public_dependency, which may come packed.
  expect(isTaken(FileDescriptorProtoSchema, Buffer.concat([Buffer.from([0x52]), length, path]))).toBe(false);
  expect(isTaken(FileDescriptorSetSchema, Buffer.alloc(0))).toBe(true);
});
