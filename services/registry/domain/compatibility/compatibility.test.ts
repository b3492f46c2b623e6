import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { createComparer } from "../incompatible.ts";
import { compileProtobuf } from "../protobuf/compile-protobuf.ts";
import { type Compatibility, directionsOf, versionsToCompare } from "./level.ts";

/** What of `next` breaks who holds to `previous`, as `rule place`. */
function rulesOf(previous: string, next: string, level: Exclude<Compatibility, "NONE">): readonly string[] {
  const link = (text: string) => ({
    type: "PROTOBUF" as const,
    descriptor: compileProtobuf(text, new Map(), false).descriptor,
    imports: new Map(),
  });
  return createComparer(link(next), level)({ ...link(previous), version: 1 }).map(({ rule }) => rule);
}

interface Case {
  readonly what: string;
  readonly before: string;
  readonly after: string;
  /** The rules that it breaks under BACKWARD and under FORWARD. */
  readonly backward: readonly string[];
  readonly forward: readonly string[];
  readonly proto2?: boolean;
  /** buf has no directions, or judges otherwise: why. */
  readonly bufAllows?: string;
}

const both = (rule: string) => ({ backward: [rule], forward: [rule] });
const fine = { backward: [], forward: [] };

const cases: readonly Case[] = [
  { what: "nothing", before: "message M { int32 a = 1; }", after: "message M { int32 a = 1; }", ...fine },
  { what: "a field more", before: "message M {}", after: "message M { int32 a = 1; }", ...fine },
  {
    what: "a message, an enum and a service more",
    before: "",
    after: "message M {} enum E { A = 0; } service S {}",
    ...fine,
  },
  {
    what: "a field removed",
    before: "message M { int32 a = 1; }",
    after: "message M {}",
    ...both("FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED"),
  },
  {
    what: "a field removed, its number and name reserved",
    before: "message M { int32 a = 1; }",
    after: 'message M { reserved 1; reserved "a"; }',
    ...fine,
  },
  {
    what: "a reserved number used again",
    before: "message M { reserved 1; }",
    after: "message M { int32 a = 1; }",
    ...both("RESERVED_MESSAGE_NO_DELETE"),
  },
  {
    what: "a reserved range in two halves",
    before: "message M { reserved 1 to 9; }",
    after: "message M { reserved 1 to 4, 5 to 9; }",
    ...fine,
  },
  {
    what: "a reserved name used again",
    before: 'message M { reserved "a"; }',
    after: "message M { int32 a = 1; }",
    ...both("RESERVED_MESSAGE_NO_DELETE"),
  },
  {
    what: "a number reused under another name",
    before: "message M { int32 a = 1; }",
    after: "message M { int32 b = 1; }",
    ...both("FIELD_SAME_NAME"),
  },
  {
    what: "another name in JSON",
    before: "message M { int32 a = 1; }",
    after: 'message M { int32 a = 1 [json_name = "x"]; }',
    ...both("FIELD_SAME_JSON_NAME"),
  },
  {
    what: "int32 to string",
    before: "message M { int32 a = 1; }",
    after: "message M { string a = 1; }",
    ...both("FIELD_WIRE_COMPATIBLE_TYPE"),
  },
  { what: "int32 to uint64", before: "message M { int32 a = 1; }", after: "message M { uint64 a = 1; }", ...fine },
  {
    what: "int32 to sint32",
    before: "message M { int32 a = 1; }",
    after: "message M { sint32 a = 1; }",
    ...both("FIELD_WIRE_COMPATIBLE_TYPE"),
  },
  {
    what: "fixed32 to sfixed32",
    before: "message M { fixed32 a = 1; }",
    after: "message M { sfixed32 a = 1; }",
    ...fine,
  },
  {
    what: "float to double",
    before: "message M { float a = 1; }",
    after: "message M { double a = 1; }",
    ...both("FIELD_WIRE_COMPATIBLE_TYPE"),
  },
  {
    what: "string to bytes",
    before: "message M { string a = 1; }",
    after: "message M { bytes a = 1; }",
    backward: [],
    forward: ["FIELD_WIRE_COMPATIBLE_TYPE"],
    bufAllows: "it looks from the new version only, which reads any text as bytes",
  },
  {
    what: "bytes to string",
    before: "message M { bytes a = 1; }",
    after: "message M { string a = 1; }",
    backward: ["FIELD_WIRE_COMPATIBLE_TYPE"],
    forward: [],
  },
  {
    what: "another message",
    before: "message M { A a = 1; } message A {} message B {}",
    after: "message M { B a = 1; } message A {} message B {}",
    ...both("FIELD_WIRE_COMPATIBLE_TYPE"),
  },
  {
    what: "another enum",
    before: "message M { A a = 1; } enum A { X = 0; } enum B { Y = 0; }",
    after: "message M { B a = 1; } enum A { X = 0; } enum B { Y = 0; }",
    ...both("FIELD_WIRE_COMPATIBLE_TYPE"),
  },
  {
    what: "an enum to int32",
    before: "message M { A a = 1; } enum A { X = 0; }",
    after: "message M { int32 a = 1; } enum A { X = 0; }",
    ...both("FIELD_WIRE_COMPATIBLE_TYPE"),
  },
  {
    what: "singular to repeated",
    before: "message M { string a = 1; }",
    after: "message M { repeated string a = 1; }",
    ...both("FIELD_WIRE_COMPATIBLE_CARDINALITY"),
  },
  {
    what: "presence said",
    before: "message M { int32 a = 1; }",
    after: "message M { optional int32 a = 1; }",
    ...fine,
  },
  {
    what: "the key of a map",
    before: "message M { map<string, int32> a = 1; }",
    after: "message M { map<int32, int32> a = 1; }",
    ...both("FIELD_WIRE_COMPATIBLE_TYPE"),
  },
  {
    what: "the value of a map",
    before: "message M { map<string, int32> a = 1; }",
    after: "message M { map<string, string> a = 1; }",
    ...both("FIELD_WIRE_COMPATIBLE_TYPE"),
  },
  {
    what: "into a oneof",
    before: "message M { int32 a = 1; }",
    after: "message M { oneof o { int32 a = 1; } }",
    ...both("FIELD_SAME_ONEOF"),
  },
  {
    what: "out of a oneof",
    before: "message M { oneof o { int32 a = 1; int32 b = 2; } }",
    after: "message M { oneof o { int32 b = 2; } int32 a = 1; }",
    ...both("FIELD_SAME_ONEOF"),
  },
  {
    what: "one more in a oneof",
    before: "message M { oneof o { int32 a = 1; } }",
    after: "message M { oneof o { int32 a = 1; int32 b = 2; } }",
    ...fine,
  },
  {
    what: "a message removed",
    before: "message M {} message N {}",
    after: "message N {}",
    ...both("MESSAGE_NO_DELETE"),
  },
  {
    what: "a nested message removed",
    before: "message M { message N {} }",
    after: "message M {}",
    ...both("MESSAGE_NO_DELETE"),
  },
  { what: "an enum removed", before: "enum E { A = 0; }", after: "", ...both("ENUM_NO_DELETE") },
  { what: "a value more", before: "enum E { A = 0; }", after: "enum E { A = 0; B = 1; }", ...fine },
  {
    what: "a value removed",
    before: "enum E { A = 0; B = 1; }",
    after: "enum E { A = 0; }",
    ...both("ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED"),
  },
  {
    what: "a value removed, its number reserved",
    before: "enum E { A = 0; B = 1; }",
    after: "enum E { A = 0; reserved 1; }",
    ...fine,
  },
  {
    what: "a value of another name",
    before: "enum E { A = 0; B = 1; }",
    after: "enum E { A = 0; C = 1; }",
    ...both("ENUM_VALUE_SAME_NAME"),
  },
  {
    what: "a reserved value used again",
    before: "enum E { A = 0; reserved 1; }",
    after: "enum E { A = 0; B = 1; }",
    ...both("RESERVED_ENUM_NO_DELETE"),
  },
  { what: "a service removed", before: "service S {}", after: "", ...both("SERVICE_NO_DELETE") },
  {
    what: "a method removed",
    before: "message M {} service S { rpc R(M) returns (M); }",
    after: "message M {} service S {}",
    ...both("RPC_NO_DELETE"),
  },
  {
    what: "another request",
    before: "message M {} message N {} service S { rpc R(M) returns (M); }",
    after: "message M {} message N {} service S { rpc R(N) returns (M); }",
    ...both("RPC_SAME_REQUEST_TYPE"),
  },
  {
    what: "another answer",
    before: "message M {} message N {} service S { rpc R(M) returns (M); }",
    after: "message M {} message N {} service S { rpc R(M) returns (N); }",
    ...both("RPC_SAME_RESPONSE_TYPE"),
  },
  {
    what: "an answer that streams",
    before: "message M {} service S { rpc R(M) returns (M); }",
    after: "message M {} service S { rpc R(M) returns (stream M); }",
    ...both("RPC_SAME_STREAMING"),
  },
  {
    what: "a required field more",
    before: "message M {}",
    after: "message M { required int32 a = 1; }",
    backward: ["MESSAGE_SAME_REQUIRED_FIELDS"],
    forward: [],
    proto2: true,
  },
  {
    what: "a required field removed",
    before: "message M { required int32 a = 1; }",
    after: "message M { reserved 1; }",
    backward: [],
    forward: ["MESSAGE_SAME_REQUIRED_FIELDS"],
    proto2: true,
  },
  {
    what: "a field that becomes required",
    before: "message M { optional int32 a = 1; }",
    after: "message M { required int32 a = 1; }",
    backward: ["MESSAGE_SAME_REQUIRED_FIELDS"],
    forward: [],
    proto2: true,
  },
];

const textOf = (body: string, name: string, proto2 = false): string =>
  `syntax = "${proto2 ? "proto2" : "proto3"}";\npackage ${name};\n${body}\n`;

test.each(cases)("$what", ({ before, after, backward, forward, proto2 }) => {
  const previous = textOf(before, "p", proto2);
  const next = textOf(after, "p", proto2);
  expect(rulesOf(previous, next, "BACKWARD")).toEqual(backward);
  expect(rulesOf(previous, next, "FORWARD")).toEqual(forward);
  expect(new Set(rulesOf(previous, next, "FULL"))).toEqual(new Set([...backward, ...forward]));
});

describe("beside buf breaking", () => {
  const directory = mkdtempSync(join(tmpdir(), "cadre-breaking-"));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  test("what breaks by its rules breaks by ours, and nothing else", () => {
    for (const side of ["before", "after"] as const) {
      mkdirSync(join(directory, side));
      for (const [index, one] of cases.entries()) {
        const text = textOf(one[side], `case${index}`, one.proto2);
        writeFileSync(join(directory, side, `case${index}.proto`), text);
      }
    }
    const use = [
      ...["WIRE", "FIELD_SAME_NAME", "FIELD_SAME_JSON_NAME", "ENUM_VALUE_SAME_NAME"],
      ...["MESSAGE_NO_DELETE", "ENUM_NO_DELETE", "SERVICE_NO_DELETE", "RPC_NO_DELETE"],
    ];
    const config = JSON.stringify({ version: "v2", breaking: { use } });
    const flags = ["--config", config, "--against-config", config, "--error-format", "json"];
    const { stdout, stderr } = spawnSync(
      "buf",
      ["breaking", join(directory, "after"), "--against", join(directory, "before"), ...flags],
      { encoding: "utf8" },
    );
    const broken = new Set(
      stdout
        .split("\n")
        .filter((line) => line !== "")
        .map((line) =>
          Number(/case(\d+)/.exec((JSON.parse(line) as { path?: string; message: string }).path ?? line)?.[1]),
        ),
    );
    expect(broken.size, stderr).toBeGreaterThan(20);
    for (const [index, { what, backward, forward, bufAllows }] of cases.entries()) {
      const isOurs = backward.length + forward.length > 0 && bufAllows === undefined;
      expect([what, broken.has(index)]).toEqual([what, isOurs]);
    }
  });
});

const scalars = ["int32", "string", "bytes", "double", "bool", "sint64", "fixed32"] as const;
const fields = fc.uniqueArray(
  fc.record({ number: fc.integer({ min: 1, max: 200 }), type: fc.constantFrom(...scalars), repeated: fc.boolean() }),
  { selector: ({ number }) => number, minLength: 1, maxLength: 12 },
);
type Fields = Parameters<Parameters<typeof fields.map>[0]>[0];
const messageOf = (all: Fields): string =>
  textOf(
    `message M { ${all.map(({ number, type, repeated }) => `${repeated ? "repeated " : ""}${type} f${number} = ${number};`).join(" ")} }`,
    "p",
  );

test("any fields that are added, wherever they stand, break nobody in any direction", () => {
  fc.assert(
    fc.property(fields, fc.infiniteStream(fc.boolean()), (all, coin) => {
      const before = all.filter(() => coin.next().value === true);
      expect(rulesOf(messageOf(before), messageOf(all), "FULL_TRANSITIVE")).toEqual([]);
    }),
    { numRuns: 100 },
  );
});

test("a field of another form on the wire breaks both directions, whatever is around it", () => {
  fc.assert(
    fc.property(fields, fc.nat(), fc.constantFrom(...scalars), (all, at, type) => {
      const index = at % all.length;
      const changed = all.map((field, position) => (position === index ? { ...field, type } : field));
      const before = all[index]?.type ?? "";
      const sameForm = [
        ["int32", "bool"],
        ["string", "bytes"],
      ].some((form) => form.includes(before) && form.includes(type));
      fc.pre(before !== type && !sameForm);
      for (const level of ["BACKWARD", "FORWARD"] as const) {
        expect(rulesOf(messageOf(all), messageOf(changed), level)).toEqual(["FIELD_WIRE_COMPATIBLE_TYPE"]);
      }
    }),
    { numRuns: 100 },
  );
});

test("any field that is removed breaks, and with its number reserved does not", () => {
  fc.assert(
    fc.property(fields, fc.nat(), (all, at) => {
      const gone = all[at % all.length];
      const rest = messageOf(all.filter((field) => field !== gone));
      expect(rulesOf(messageOf(all), rest, "BACKWARD")).toEqual(["FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED"]);
      const reserved = rest.replace("message M {", `message M { reserved ${gone?.number};`);
      expect(rulesOf(messageOf(all), reserved, "FULL")).toEqual([]);
    }),
    { numRuns: 100 },
  );
});

test.each([
  ["NONE", [], { backward: false, forward: false }],
  ["BACKWARD", [3], { backward: true, forward: false }],
  ["BACKWARD_TRANSITIVE", [3, 2, 1], { backward: true, forward: false }],
  ["FORWARD", [3], { backward: false, forward: true }],
  ["FORWARD_TRANSITIVE", [3, 2, 1], { backward: false, forward: true }],
  ["FULL", [3], { backward: true, forward: true }],
  ["FULL_TRANSITIVE", [3, 2, 1], { backward: true, forward: true }],
] as const)("%s compares with %j", (level, versions, directions) => {
  expect(versionsToCompare(level, [1, 2, 3])).toEqual(versions);
  expect(directionsOf(level)).toEqual(directions);
});

test("another package is said once, not for every message", () => {
  const body = "message M {} message N {}";
  expect(rulesOf(textOf(body, "a"), textOf(body, "b"), "BACKWARD")).toEqual(["FILE_SAME_PACKAGE"]);
});
