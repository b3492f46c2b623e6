import fc from "fast-check";
import { expect, test } from "vitest";
import { refusals } from "../../../../test/support/graphs.ts";
import type { AppError } from "../../../runtime/errors/app-error.ts";
import type { Json } from "../json.ts";
import { parseReference } from "./reference.ts";
import type { Scope } from "./scope.ts";
import { compileTemplate, referencesOf, resolve } from "./template.ts";

const fetched: Json = { items: [{ id: "a" }, { id: "b" }], "first name": "Ada" };
const scope: Scope = {
  input: { url: "https://example.test", list: [1, 2] },
  output: (step) => (step === "fetch" ? fetched : null),
  item: { id: "i" },
  index: 7,
  own: "done",
};

function filledIn(json: Json): Json {
  return resolve(compileTemplate(json, "t"), scope);
}

test("references stand for values, also within objects and lists", () => {
  expect(
    filledIn({
      url: { $ref: "input.url" },
      second: [{ $ref: "steps.fetch.output.items[1].id" }, { $ref: 'steps.fetch.output["first name"]' }],
      own: [{ $ref: "item.id" }, { $ref: "index" }, { $ref: "output" }],
      skipped: { $ref: "steps.skipped.output" },
      plain: { a: [1, null, true] },
    }),
  ).toEqual({
    url: "https://example.test",
    second: ["b", "Ada"],
    own: ["i", 7, "done"],
    skipped: null,
    plain: { a: [1, null, true] },
  });
});

test("what a reference gives is not copied", () => {
  expect((filledIn({ all: { $ref: "steps.fetch.output" } }) as { all: Json }).all).toBe(fetched);
});

test("$literal stands for its value as it is", () => {
  expect(filledIn({ a: { $literal: { $ref: "input.url" } }, b: [{ $literal: null }] })).toEqual({
    a: { $ref: "input.url" },
    b: [null],
  });
});

test.each([
  "input.missing",
  "input.list[2]",
  "input.list.length",
  "input.url.length",
  "input.toString",
  'input["__proto__"]',
  "steps.skipped.output.id",
  "steps.fetch.output.items.id",
])("%s has no value", (source) => {
  expect(() => filledIn([{ $ref: source }])).toThrow(
    expect.objectContaining({ reason: "EVALUATION_FAILED", message: `${source} has no value` }) as AppError,
  );
});

test("a member named __proto__ is data", () => {
  const json = JSON.parse('{"__proto__": {"polluted": true}, "a": {"$ref": "input.url"}}') as Json;
  const made = filledIn(json) as Record<string, Json>;
  expect(Object.keys(made)).toEqual(["__proto__", "a"]);
  expect(Object.getPrototypeOf(made)).toBe(Object.prototype);
  expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
});

test.each([
  [{ a: [{ $ref: 1 }] }, "t.a[0]: $ref must be a text"],
  [{ a: { $ref: "input", b: 1 } }, 't.a: "$ref" must be the only key'],
  [{ a: { $literal: 1, b: 1 } }, 't.a: "$literal" must be the only key'],
  [
    { "a b": { $eval: "1" } },
    't["a b"]: "$eval" means nothing here; a value with such a key stands in {"$literal": …}',
  ],
  [{ a: 1, $comment: "x" }, 't: "$comment" means nothing here; a value with such a key stands in {"$literal": …}'],
] satisfies [Json, string][])("%j is refused", (json, problem) => {
  expect(refusals(() => compileTemplate(json, "t"))).toEqual([problem]);
});

test.each([
  "",
  "inputs",
  "steps",
  "steps.fetch",
  "steps.fetch.items",
  "steps.Fetch.output",
  "input.",
  "input..a",
  "input[",
  "input[01]",
  "input[-1]",
  "input['a']",
  'input["a]',
  'input["\\x41"]',
  "input.a b",
  "input.1a",
  "input[1e3]",
  " input",
  `input${".a".repeat(600)}`,
])("%j is no reference", (source) => {
  expect(parseReference(source)).toBeTypeOf("string");
});

test("a template nests at most 32 deep, and so does a literal in it", () => {
  const nest = (levels: number, inner: Json): Json => (levels === 0 ? inner : [nest(levels - 1, inner)]);
  expect(refusals(() => compileTemplate(nest(32, 1), "t"))).toEqual([]);
  expect(refusals(() => compileTemplate(nest(33, 1), "t"))).toEqual([
    `t${"[0]".repeat(32)}: is nested more than 32 deep`,
  ]);
  expect(refusals(() => compileTemplate({ a: { $literal: nest(31, 1) } }, "t"))).toEqual([]);
  expect(refusals(() => compileTemplate({ a: { $literal: nest(32, 1) } }, "t"))).toHaveLength(1);
});

const json = fc.jsonValue({ maxDepth: 4 }) as fc.Arbitrary<Json>;
const key = fc.string().filter((name) => !name.startsWith("$"));
const plain = fc.letrec<{ json: Json }>((tie) => ({
  json: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom<Json>(null, true, 0, "", "$ref"),
    fc.array(tie("json"), { maxLength: 3 }),
    fc.dictionary(key, tie("json"), { maxKeys: 3 }),
  ),
})).json;

test("a template without references gives the very value that it was made of", () => {
  fc.assert(
    fc.property(plain, (value) => {
      expect(filledIn(value)).toBe(value);
    }),
  );
});

test("any value in $literal comes out as it is, and names nothing", () => {
  fc.assert(
    fc.property(json, (value) => {
      const template = compileTemplate({ a: { $literal: value } }, "t");
      expect(resolve(template, scope)).toEqual({ a: value });
      expect([...referencesOf(template)]).toEqual([]);
    }),
  );
});

test("a reference to any place in any value finds what stands there", () => {
  fc.assert(
    fc.property(json, fc.infiniteStream(fc.nat()), (value, choices) => {
      let at: Json = value;
      let source = "input";
      while (typeof at === "object" && at !== null && Object.keys(at).length > 0) {
        const keys = Object.keys(at);
        const name = keys[(choices.next().value ?? 0) % keys.length] ?? "";
        source += Array.isArray(at) ? `[${name}]` : `[${JSON.stringify(name)}]`;
        at = (at as Readonly<Record<string, Json>>)[name] ?? null;
      }
      expect(resolve(compileTemplate({ $ref: source }, "t"), { ...scope, input: value })).toBe(at);
    }),
  );
});
