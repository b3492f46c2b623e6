import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { AppError } from "../errors/app-error.ts";
import { compileJsonSchema } from "./json-schema.ts";

function fieldsOf(schema: JsonObject, value: unknown): string[] {
  return compileJsonSchema(schema)
    .validate(value)
    .map(({ field }) => field);
}

function refusal(schema: JsonObject, field?: string): AppError {
  try {
    compileJsonSchema(schema, field === undefined ? {} : { field });
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  throw new Error("the schema was accepted");
}

/** Milliseconds of processor time that a piece of work takes. */
function timed(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
}

describe("a value", () => {
  const person: JsonObject = {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    type: "object",
    properties: {
      name: { type: "string", minLength: 1 },
      mail: { type: "string", format: "email" },
      tags: { type: "array", items: { type: "string" }, uniqueItems: true },
      "a/b": { type: "object", properties: { "c~d": { type: "integer" } } },
    },
    required: ["name"],
    additionalProperties: false,
  };

  test("that matches has no violations", () => {
    expect(fieldsOf(person, { name: "Ada", mail: "ada@example.com", tags: ["x", "y"] })).toEqual([]);
  });

  test("is told all its violations, each by JSON Pointer", () => {
    expect(fieldsOf(person, { mail: "no", tags: [1], "a/b": { "c~d": 1.5 }, extra: 1 }).sort()).toEqual(
      ["", "/a~1b/c~0d", "/extra", "/mail", "/tags/0"].sort(),
    );
  });

  test("is never quoted", () => {
    const violations = compileJsonSchema(person).validate({ name: 7, mail: "hunter2", tags: ["hunter2", "hunter2"] });
    expect(violations.length).toBe(3);
    expect(JSON.stringify(violations)).not.toContain("hunter2");
  });

  test("that is large is told its first violation only", () => {
    const tags = Array.from({ length: 5_000 }, (_, index) => index);
    expect(fieldsOf(person, { name: "Ada", tags })).toEqual(["/tags/0"]);
  });

  test("with equal items in another key order is not unique", () => {
    expect(
      fieldsOf({ uniqueItems: true }, [
        { a: 1, b: 2 },
        { b: 2, a: 1 },
      ]),
    ).toEqual([""]);
  });

  test("nested too deep does not match", () => {
    let value: unknown = 1;
    for (let depth = 0; depth < 100; depth++) value = [value];
    expect(fieldsOf({}, value)).toEqual([""]);
  });
});

describe("a schema is refused", () => {
  const cases: [string, JsonObject, string][] = [
    ["that is not one", { type: "objekt" }, "input/type"],
    ["with a remote reference", { $ref: "https://example.com/x" }, "input/$ref"],
    ["with a reference to nowhere", { properties: { a: { $ref: "#/$defs/a" } } }, "input/properties/a/$ref"],
    ["with a reference into data", { $ref: "#/const", const: { pattern: "a" } }, "input/$ref"],
    ["of another draft", { $schema: "http://json-schema.org/draft-07/schema#" }, "input/$schema"],
    ["that would be checked asynchronously", { $async: true }, "input/$async"],
    ["with an invalid pattern", { pattern: "(" }, "input/pattern"],
    ["with lookahead", { pattern: "^(?!x)" }, "input/pattern"],
    ["with a back-reference", { pattern: "^(a)\\1$" }, "input/pattern"],
    [
      "with a long pattern",
      { patternProperties: { [`a${"b".repeat(256)}`]: true } },
      `input/patternProperties/a${"b".repeat(256)}`,
    ],
    ["with a pattern of too many states", { pattern: "(?:a{500}){500}" }, "input/pattern"],
    ["with endless empty repetition", { pattern: "(?:){999999999}" }, "input/pattern"],
    ["with an id inside", { properties: { a: { $id: "https://example.com/other" } } }, "input/properties/a/$id"],
    ["that is too large", { description: "x".repeat(70_000) }, "input"],
    ["that is too deep", JSON.parse(`${'{"not":'.repeat(40)}{}${"}".repeat(40)}`), "input"],
    ["of too many subschemas", { allOf: Array.from({ length: 2_001 }, () => ({})) }, "input"],
  ];
  test.each(cases)("%s", (_, schema, field) => {
    const error = refusal(schema, "input");
    expect(error.reason).toBe("INVALID_SCHEMA");
    expect(error.violations.map((violation) => violation.field)).toContain(field);
  });
});

describe("time is bounded", () => {
  test("of a reference that leads to itself", () => {
    expect(fieldsOf({ $ref: "#" }, 1)).toEqual([""]);
    expect(fieldsOf({ $dynamicAnchor: "x", allOf: [{ $dynamicRef: "#x" }] }, 1)).toEqual([""]);
  });

  test("of references that double thirty times", () => {
    const definitions: JsonObject = { d30: { type: "integer" } };
    for (let level = 0; level < 30; level++) {
      const next = { $ref: `#/$defs/d${level + 1}` };
      definitions[`d${level}`] = { allOf: [next, { $ref: `#/$defs/d${level + 1}` }] };
    }
    const schema = compileJsonSchema({ $defs: definitions, $ref: "#/$defs/d0" });
    expect(timed(() => expect(schema.validate(1)).toMatchObject([{ rule: "cost" }]))).toBeLessThan(500);
  });

  test("of patterns that would backtrack", () => {
    const schema = compileJsonSchema({ items: { pattern: "^(a|a|aa)*$" } });
    const text = `${"a".repeat(50_000)}!`;
    expect(timed(() => expect(schema.validate([text])).toMatchObject([{ field: "/0" }]))).toBeLessThan(1_000);
    expect(
      timed(() => expect(schema.validate(["a".repeat(1_000_000)])).toMatchObject([{ rule: "cost" }])),
    ).toBeLessThan(2_000);
  });

  test("of uniqueness among many objects", () => {
    const items = Array.from({ length: 100_000 }, (_, index) => ({ index }));
    expect(timed(() => expect(fieldsOf({ uniqueItems: true }, items)).toEqual([]))).toBeLessThan(2_000);
  });

  test("of formats on long texts", () => {
    const schema = compileJsonSchema({ format: "email" });
    expect(schema.validate("a".repeat(100_000))).toHaveLength(1);
  });
});

test.each([
  [{ const: { valueOf: 1 } }, { valueOf: 1 }, true],
  [{ const: { a: 1 } }, { valueOf: 1 }, false],
  [{ enum: [{ toString: 1 }, [1]] }, { toString: 1 }, true],
  [{ enum: [{ toString: 1 }, [1]] }, { a: { toString: 1 } }, false],
  [{ const: { a: [1, { b: null }] } }, { a: [1, { b: null }] }, true],
  [{ const: JSON.parse('{"__proto__": 1}') as JsonObject }, { a: 1 }, false],
  [{ const: { 0: "a" } }, ["a"], false],
  [{ enum: [1, "a", null] }, 1.0, true],
  [{ enum: [1, "a", null] }, "1", false],
] satisfies [JsonObject, JsonValue, boolean][])("%j and %j: equality looks at data only", (schema, value, equal) => {
  expect(compileJsonSchema(schema).validate(value).length === 0).toBe(equal);
});

test.each([
  [{ oneOf: [{ prefixItems: [true] }], not: true, $ref: "#/$defs/one", $defs: { one: { type: "null" } } }, {}],
  [{ patternProperties: { "^a": true }, oneOf: [{ additionalProperties: true, const: null }] }, { a: [] }],
] satisfies [JsonObject, JsonValue][])("%j: a fault of the code that ajv writes is a refusal", (schema, value) => {
  expect(fieldsOf(schema, value)).not.toEqual([]);
  expect(fieldsOf({ ...schema, unevaluatedProperties: true, unevaluatedItems: true }, value)).not.toEqual([]);
});

test("an equal schema is compiled once", () => {
  const first = compileJsonSchema({ type: "object", title: "once" });
  expect(compileJsonSchema({ title: "once", type: "object" })).toBe(first);
});

test("ids of one schema do not resolve in another", () => {
  compileJsonSchema({ $id: "https://example.com/a", type: "string" });
  expect(refusal({ $ref: "https://example.com/a" }).reason).toBe("INVALID_SCHEMA");
  expect(fieldsOf({ $id: "https://example.com/a", type: "integer" }, "x")).toEqual([""]);
});

test("two patterns of one schema are told apart", () => {
  const schema: JsonObject = {
    properties: { a: { pattern: "^x$" }, b: { pattern: "^y$" } },
    patternProperties: { "^z": { type: "null" } },
  };
  expect(fieldsOf(schema, { a: "x", b: "y", z1: null })).toEqual([]);
  expect(fieldsOf(schema, { a: "y", b: "x", z1: 1 }).sort()).toEqual(["/a", "/b", "/z1"]);
});
