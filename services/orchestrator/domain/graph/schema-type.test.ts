import type { JsonObject as ProtoJsonObject } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { compileJsonSchema, findSchemaFaults } from "../../../runtime/json-schema/json-schema.ts";
import type { Json, JsonObject } from "../json.ts";
import { Fit } from "./fit.ts";
import { Problems } from "./problems.ts";
import { jsonKind, SchemaReader, typeOfSchema } from "./schema-type.ts";

const name = fc.constantFrom("a", "b", "c");
const value = fc.letrec<{ json: Json }>((tie) => ({
  json: fc.oneof(
    { maxDepth: 3 },
    fc.constantFrom<Json>(null, true, false, 0, 1, 1.5, "", "x"),
    fc.array(tie("json"), { maxLength: 3 }),
    fc.dictionary(name, tie("json"), { maxKeys: 3 }),
  ),
})).json;

const schema = fc.letrec<{ schema: Json }>((tie) => {
  const inner = tie("schema");
  const inners = fc.array(inner, { minLength: 1, maxLength: 2 });
  return {
    schema: fc.oneof(
      { maxDepth: 3, withCrossShrink: true },
      fc.constantFrom<Json>(true, {}, false),
      fc.constantFrom("null", "boolean", "integer", "number", "string", "array", "object").map((type) => ({ type })),
      fc.record(
        {
          type: fc.constantFrom<Json>("object", ["object", "null"], "array", ["array", "string"]),
          properties: fc.dictionary(name, inner, { maxKeys: 2 }),
          required: fc.uniqueArray(name, { maxLength: 1 }),
          additionalProperties: inner,
          patternProperties: fc.dictionary(fc.constantFrom("^a", "b$"), inner, { maxKeys: 1 }),
          items: inner,
          prefixItems: inners,
          maxItems: fc.nat({ max: 2 }),
          anyOf: inners,
          oneOf: inners,
          allOf: inners,
          not: inner,
          const: value,
          enum: fc.array(value, { minLength: 1, maxLength: 3 }),
          $ref: fc.constantFrom("#/$defs/one", "#/$defs/two", "#"),
        },
        { requiredKeys: [] },
      ),
    ),
  };
}).schema;

const whole = fc.tuple(schema, schema, schema).map(
  ([root, one, two]): JsonObject => ({
    ...(typeof root === "object" ? (root as JsonObject) : { allOf: [root] }),
    $defs: { one, two },
  }),
);

function allows(root: JsonObject, candidate: Json): boolean {
  const schema = root as ProtoJsonObject;
  return findSchemaFaults(schema, "").length === 0 && compileJsonSchema(schema).validate(candidate).length === 0;
}

test("what a schema allows is never said to be impossible", () => {
  let allowed = 0;
  fc.assert(
    fc.property(whole, value, (root, candidate) => {
      if (!allows(root, candidate)) return;
      allowed += 1;
      const problems = new Problems();
      const reader = new SchemaReader();
      const type = typeOfSchema(root);
      new Fit(reader, problems).check({ kind: "constant", value: candidate }, type, "t", () => type);
      problems.throwIfFound();
      expect(reader.canBe(type, jsonKind(candidate))).toBe(true);
      for (const [key, part] of Object.entries(candidate ?? {}) as [string, Json][]) {
        const inner = reader.member(type, Array.isArray(candidate) ? Number(key) : key);
        if (typeof candidate === "string") continue;
        expect(inner).toBeDefined();
        if (inner !== undefined) expect(reader.canBe(inner, jsonKind(part))).toBe(true);
        if (Array.isArray(candidate)) expect(reader.canBe(reader.element(type), jsonKind(part))).toBe(true);
      }
    }),
    // Each one is compiled to code; a busy machine makes fewer.
    { numRuns: 400, interruptAfterTimeLimit: 10_000 },
  );
  expect(allowed).toBeGreaterThan(10);
});

test("schemas that lead in circles are given up on", () => {
  const circle: JsonObject = {
    $ref: "#/$defs/a",
    $defs: { a: { anyOf: [{ $ref: "#/$defs/a" }, { $ref: "#/$defs/a" }] } },
  };
  const reader = new SchemaReader();
  expect(reader.canBe(typeOfSchema(circle), "string")).toBe(true);
  expect(reader.member(typeOfSchema(circle), "x")).toBeDefined();
});
