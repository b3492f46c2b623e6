import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromBinary, type JsonObject, toBinary, toJson } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AppError } from "../../../runtime/errors/app-error.ts";
import { compileProtobuf } from "./compile-protobuf.ts";
import { optionsOf } from "./walk-options.ts";

const maxBuffer = 64 * 1024 * 1024;
const directory = mkdtempSync(join(tmpdir(), "cadre-registry-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** What buf makes of the files of a directory. */
function buildWithBuf(input: string): readonly FileDescriptorProto[] {
  const bytes = execFileSync("buf", ["build", input, "--as-file-descriptor-set", "-o", "-#format=binpb"], {
    maxBuffer,
  });
  return fromBinary(FileDescriptorSetSchema, bytes).file;
}

function compile(text: string, imports: readonly FileDescriptorProto[] = [], normalize = false) {
  return compileProtobuf(text, new Map(imports.map((file) => [file.name, file])), normalize);
}

function descriptorOf(compiled: { readonly descriptor: Uint8Array }): FileDescriptorProto {
  return fromBinary(FileDescriptorProtoSchema, compiled.descriptor);
}

/** A file as JSON without what has a default spelling; options of extensions as their bytes. */
function comparable(file: FileDescriptorProto, imports: readonly FileDescriptorProto[] = []): unknown {
  const base64 = Buffer.from(toBinary(FileDescriptorProtoSchema, file)).toString("base64");
  const canonical = fromBinary(FileDescriptorProtoSchema, compile(base64, imports).content);
  return {
    ...(toJson(FileDescriptorProtoSchema, canonical) as JsonObject),
    extensions: optionsOf(canonical).map(({ options, scope }) => [
      scope,
      (options.$unknown ?? []).map(({ no, data }) => [no, Buffer.from(data).toString("hex")]),
      options.uninterpretedOption.length,
    ]),
  };
}

describe("beside buf, over all contracts of this repository", () => {
  let files: readonly FileDescriptorProto[] = [];
  const texts = new Map<string, string>();
  beforeAll(() => {
    files = buildWithBuf("proto");
    for (const { name } of files) {
      for (const root of ["proto", "third_party/proto"]) {
        try {
          texts.set(name, readFileSync(join(root, name), "utf8"));
        } catch (thrown) {
          if ((thrown as NodeJS.ErrnoException).code !== "ENOENT") throw thrown;
        }
      }
    }
  });

  test("the text is the schema that the descriptor of buf is, with all options of extensions", () => {
    const read = files.filter(({ name }) => texts.has(name));
    expect(read.length).toBeGreaterThan(20);
    for (const file of read) {
      const ours = compile(texts.get(file.name) ?? "", files);
      const theirs = compile(Buffer.from(toBinary(FileDescriptorProtoSchema, file)).toString("base64"), files);
      expect(comparable(descriptorOf(ours), files), file.name).toEqual(comparable(file, files));
      expect(Buffer.from(ours.content).equals(theirs.content), file.name).toBe(true);
      expect(optionsOf(descriptorOf(ours)).filter(({ options }) => options.uninterpretedOption.length > 0)).toEqual([]);
    }
  });

  test("a descriptor is printed as text that compiles to the same, with the options of extensions", () => {
    for (const file of files.filter(({ name }) => texts.has(name))) {
      const base64 = Buffer.from(toBinary(FileDescriptorProtoSchema, file)).toString("base64");
      const again = descriptorOf(compile(compile(base64, files).text, files));
      expect(comparable(again, files), file.name).toEqual(comparable(file, files));
    }
    const tool = files.find(({ name }) => name === "cadre/tools/v1/tool.proto");
    if (tool === undefined) throw new Error("no tool.proto");
    const { text } = compile(Buffer.from(toBinary(FileDescriptorProtoSchema, tool)).toString("base64"), files);
    expect(text).toContain('option (cadre.options.v1.authz) = { resource: "tool" relation: RELATION_DEVELOPER scope:');
    expect(text).toContain("[(buf.validate.field) = { required: true }]");
  });
});

/** A file with everything that the contracts of this repository do not have. */
const exotic = `
// proto2, with what only that has.
package exotic.v1;
import public "google/protobuf/timestamp.proto";
import 'google/protobuf/descriptor.proto';
option java_package = "com.example" ".exotic"; /* two literals */
option optimize_for = SPEED;
extend google.protobuf.FieldOptions { optional string hint = 50001; optional Level level = 50002; }
message Outer {
  option deprecated = true;
  option message_set_wire_format = false;
  required int32 id = 1;
  optional string name = 2 [default = "a\\"b\\n\\x41\\101", (hint) = "look", deprecated=true];
  optional bytes raw = 3 [default = "\\001\\xff"];
  optional double ratio = 4 [default = -1.5e3];
  optional float infinite = 5 [default = inf];
  optional Level lvl = 6 [default = HIGH];
  repeated sint64 numbers = 7 [packed = true];
  optional uint64 big = 0x10 [default = 18446744073709551615];
  optional group Result = 9 { optional string url = 1; repeated group Part = 2 { optional int32 n = 1; } }
  map<string, Inner.Deep> deep_by_name = 10;
  oneof choice { option (exotic.v1.picky) = true; Inner inner = 11; .exotic.v1.Level level = 12; group Other = 13 { } }
  message Inner { message Deep { optional Outer outer = 1; optional Inner sibling = 2; } extensions 100 to 199, 1000 to max; }
  enum Local { option allow_alias = true; A = -1; B = 0; C = 0x7; D = 7; reserved 100 to max, -5 to -3; reserved "OLD"; }
  optional Local local = 14;
  optional google.protobuf.Timestamp at = 15;
  reserved 30, 40 to 49, 500 to max;
  reserved "gone", "gone_too";
  extend Inner { optional int32 extra = 100; }
  optional int32 message = 17; optional int32 reserved_name_ = 18; optional bool option = 19;
}
extend google.protobuf.OneofOptions { optional bool picky = 50003; }
enum Level { LOW = 1; HIGH = 2 [deprecated = true]; }
service Search {
  option deprecated = true;
  rpc Find (Outer) returns (stream .exotic.v1.Outer.Inner) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc Push (stream Outer) returns (google.protobuf.Timestamp);;
}
;
`;

const modern = `
syntax = "proto3";
package modern;
message M {
  optional int32 a = 1;
  oneof _a_ { string b = 2; bytes c = 3; }
  optional string _x = 4;
  optional M self = 5;
  map<int32, .modern.M.E> es = 6;
  repeated double ds = 7 [packed = false, json_name = "numbers"];
  enum E { ZERO = 0; ONE = 1; }
  message modern { int32 n = 1; }
  modern inner = 8;
}
`;

const edition = `
edition = "2023";
package edition.v1;
option features.field_presence = IMPLICIT;
message M {
  int32 a = 1 [features.field_presence = EXPLICIT];
  string b = 2 [features.field_presence = LEGACY_REQUIRED];
  M child = 3 [features.message_encoding = DELIMITED];
  reserved gone, also_gone;
  reserved 9;
}
enum E { option features.enum_type = CLOSED; FIVE = 5; }
`;

test.each(Object.entries({ exotic, edition }))("%s: as buf compiles it, and back from its print", (name, text) => {
  writeFileSync(join(directory, `${name}.proto`), text);
  const theirs = buildWithBuf(`${join(directory, `${name}.proto`)}`).find((file) =>
    file.name.endsWith(`${name}.proto`),
  );
  if (theirs === undefined) throw new Error("buf built nothing");
  const ours = compile(text);
  expect(comparable(descriptorOf(ours))).toEqual(comparable(theirs));
  const printed = compile(Buffer.from(ours.descriptor).toString("base64"));
  expect(Buffer.from(compile(printed.text).content).equals(ours.content)).toBe(true);
});

test.each([
  ["a value of another type", "[(hint) = 3]", /option \(hint\) in .*expected a text in quotes/],
  ["a name that the enum does not have", "[(level) = MIDDLE]", /exotic\.v1\.Level has no value MIDDLE/],
  ["a part of what has none", "[(hint).x = 3]", /it has no parts/],
])("an option of an extension is refused: %s", (_what, option, words) => {
  const body = `message More { optional int32 a = 1 ${option}; }`;
  expect(() => compile(`${exotic}${body}`)).toThrow(words);
});

test("layout, comments and the form in which it came make no other schema; content does", () => {
  const text = 'syntax = "proto3"; package p; message A { string b = 1; int32 c = 2; }';
  const { content, descriptor } = compile(text);
  const same = [
    text.replaceAll(";", " ;\n // why\n"),
    Buffer.from(descriptor).toString("base64"),
    text.replace("string b = 1;", 'string b = 1 [json_name = "b"];'),
  ];
  for (const other of same) expect(Buffer.from(compile(other).content).equals(content), other).toBe(true);
  for (const other of [text.replace("b =", "d ="), text.replace("package p", "package q")]) {
    expect(Buffer.from(compile(other).content).equals(content), other).toBe(false);
  }
});

test("normalize takes the order of imports and reservations away, and of messages not", () => {
  const head = 'syntax = "proto3"; import "google/protobuf/any.proto"; import "google/protobuf/empty.proto";';
  const turned = 'syntax = "proto3"; import "google/protobuf/empty.proto"; import "google/protobuf/any.proto";';
  const contentOf = (text: string) => Buffer.from(compile(text, [], true).content);
  const a = contentOf(`${head} message A { reserved 2, 5; } message B {}`);
  expect(contentOf(`${turned} message A { reserved 5, 2; } message B {}`).equals(a)).toBe(true);
  expect(contentOf(`${head} message B {} message A { reserved 2, 5; }`).equals(a)).toBe(false);
});

const message = (body: string, syntax = "proto3"): string => `syntax = "${syntax}";\nmessage M {\n${body}\n}\n`;

test.each([
  ["a missing semicolon", message("int32 a = 1"), /line 4, column 1: expected ";"/],
  ["a number used twice", message("int32 a = 1; int32 b = 1;"), /message M: fields a and b have the same number 1/],
  ["a name used twice", message("int32 a = 1; string a = 2;"), /M.a is declared twice/],
  ["the number zero", message("int32 a = 0;"), /the number of a field is 1 to 536870911/],
  ["a number of Protobuf's own", message("int32 a = 19500;"), /19000 to 19999 are Protobuf's own/],
  ["a reserved number", message("reserved 2 to 4; int32 a = 3;"), /the number 3 is reserved/],
  ["a reserved name", message('reserved "a"; int32 a = 3;'), /the name a is reserved/],
  ["ranges that overlap", message("reserved 2 to 4, 4;"), /ranges that share the number 4/],
  ["a type that is not there", message("Nothing a = 1;"), /M.a: there is no type Nothing/],
  ["an import that is not there", 'syntax = "proto3"; import "x.proto";', /import "x.proto" is neither/],
  ["required in proto3", message("required int32 a = 1;"), /required is of proto2/],
  ["no label in proto2", message("int32 a = 1;", "proto2"), /expected required, optional or repeated/],
  ["a default in proto3", message("int32 a = 1 [default = 3];"), /proto3 has no defaults/],
  ["a group in proto3", message("repeated group G = 1 {}"), /groups are of proto2/],
  ["an enum without zero", 'syntax = "proto3"; enum E { A = 1; }', /the first value of proto3 is zero/],
  ["an empty enum", 'syntax = "proto3"; enum E { }', /enum E: has no value/],
  ["an alias without leave", 'syntax = "proto3"; enum E { A = 0; B = 0; }', /A and B have the same number 0/],
  ["values of one name in a scope", 'syntax = "proto3"; enum E { A = 0; } enum F { A = 0; }', /A is declared twice/],
  ["an empty oneof", message("oneof o { }"), /oneof o has no field/],
  ["a label in a oneof", message("oneof o { repeated int32 a = 1; }"), /a field of a oneof has no label/],
  ["a map with a double key", message("map<double, int32> a = 1;"), /a key is an integer, a bool or a string/],
  ["an unknown option", message("option wrong = 1;"), /there is no option wrong/],
  ["an option of a wrong type", message('option deprecated = "yes";'), /deprecated takes true or false/],
  ["an rpc of an enum", 'syntax = "proto3"; enum E { A = 0; } service S { rpc R(E) returns (E); }', /E is no message/],
  ["a syntax that is not known", 'syntax = "proto4";', /expected "proto2" or "proto3"/],
  ["an unclosed comment", message("/* int32 a = 1;"), /line 3, column 1: a comment that does not end/],
])("refused as buf refuses it: %s", (_what, text, words) => {
  let failure: unknown;
  try {
    compile(text);
  } catch (thrown) {
    failure = thrown;
  }
  expect(failure).toBeInstanceOf(AppError);
  expect(failure).toMatchObject({ reason: "INVALID_SCHEMA", message: expect.stringMatching(words) });
});

test("buf refuses every one of these as well, and so none is refused without need", () => {
  const refused = [
    message("int32 a = 1"),
    message("int32 a = 1; string a = 2;"),
    message("reserved 2 to 4, 4;"),
    'syntax = "proto3"; enum E { A = 0; } enum F { A = 0; }',
    message("oneof o { repeated int32 a = 1; }"),
    message("option wrong = 1;"),
  ];
  for (const text of refused) {
    writeFileSync(join(directory, "refused.proto"), text);
    expect(spawnSync("buf", ["build", join(directory, "refused.proto"), "-o", "/dev/null"]).status, text).not.toBe(0);
  }
});

test("what is nested too deep, or is no schema at all, is refused and not run into", () => {
  const deep = `syntax = "proto3"; ${"message M {".repeat(40)}${"}".repeat(40)}`;
  expect(() => compile(deep)).toThrow(/nested at most 32 deep/);
  for (const text of ["", "\0", "AAAA", "{}", '"'.repeat(1000), "/*".repeat(10_000)]) {
    if (text === "") expect(compile(text).text).toBe("");
    else expect(() => compile(text), text.slice(0, 10)).toThrow(AppError);
  }
});

const many = (count: number, make: (index: number) => string): string =>
  Array.from({ length: count }, (_, i) => make(i)).join("");
const proto3 = (body: string): string => `syntax = "proto3";${body}`;

test.each([
  [
    "fields",
    proto3(`message M {${many(30_000, (i) => `optional int32 a${i} = ${i + 20_000};`)}}`),
    /more than 20000 names/,
  ],
  ["values", proto3(`enum E {${many(50_000, (i) => `A${i} = ${i};`)}}`), /more than 20000 names/],
  ["reserved ranges", proto3(`message M {reserved ${many(80_000, (i) => `${2 * i + 1},`)}9;}`), /at most 1000 ranges/],
  ["imports", proto3(many(40_000, (i) => `import "${i}.proto";`)), /imports at most 500/],
  ["parts of a package", proto3(`package a${".a".repeat(200_000)};`), /has at most 512 characters/],
  ["parts of a type's name", proto3(`message M { a${".a".repeat(200_000)} a = 1; }`), /has at most 512 characters/],
  ["braces in an option", proto3(`option (a) = ${"{".repeat(400_000)}`), /expected "}"/],
  ["words", proto3(";".repeat(600_000)), /more than 500000 words/],
  ["letters of a string", proto3(`option java_package = "${"a".repeat(1_000_000)}`), /a character that no schema has/],
])("too many %s are refused", (_what, text, words) => {
  expect(() => compile(text)).toThrow(words);
});

test("modern proto3 is read as protoc reads it", () => {
  const file = descriptorOf(compile(modern));
  expect(file.messageType[0]?.oneofDecl.map(({ name }) => name)).toEqual(["_a_", "_a", "X_x", "_self"]);
  expect(file.messageType[0]?.field.find(({ name }) => name === "inner")?.typeName).toBe(".modern.M.modern");
});
