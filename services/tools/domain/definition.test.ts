import { readFileSync } from "node:fs";
import type { JsonObject } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { canonicalJson } from "../../runtime/json-schema/canonical-json.ts";
import { type Definition, digestOf, type SideEffects } from "./definition.ts";

interface Vector {
  readonly case: string;
  readonly definition: {
    readonly name: string;
    readonly description: string;
    readonly input_schema: JsonObject;
    readonly output_schema?: JsonObject;
    readonly side_effects: SideEffects;
    readonly timeout_ms: number;
  };
  readonly digest: string;
}

const vectors = JSON.parse(
  readFileSync(new URL("../../../test/vectors/tool-digest.json", import.meta.url), "utf8"),
) as readonly Vector[];

describe("the digest of", () => {
  test.each(vectors)("$case", ({ definition, digest }) => {
    const normal: Definition = {
      name: definition.name,
      description: definition.description,
      inputSchema: definition.input_schema,
      outputSchema: definition.output_schema,
      sideEffects: definition.side_effects,
      timeoutMs: definition.timeout_ms,
    };
    expect(digestOf(normal)).toBe(digest);
  });

  test("different definitions differ", () => {
    expect(new Set(vectors.map(({ digest }) => digest)).size).toBe(vectors.length);
  });
});

test("canonical JSON forgets the order of keys, and nothing else", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const canonical = canonicalJson(value as JsonObject);
      expect(JSON.parse(canonical)).toEqual(JSON.parse(JSON.stringify(value)));
      expect(canonicalJson(reversed(value) as JsonObject)).toBe(canonical);
    }),
  );
});

function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([key, child]) => [key, reversed(child)]),
  );
}
