import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { FieldViolation } from "../errors/app-error.ts";
import { jsonSchemaLimits } from "./limits.ts";
import { compilePattern, type LinearPattern, PatternError } from "./linear-pattern.ts";

const draft = "https://json-schema.org/draft/2020-12/schema";

/** What stands behind the keywords that hold schemas. Everything else (`const`, `default`, unknown words) is data. */
const schemaKeywords = new Set([
  "additionalProperties",
  "contains",
  "contentSchema",
  "else",
  "if",
  "items",
  "not",
  "propertyNames",
  "then",
  "unevaluatedItems",
  "unevaluatedProperties",
]);
const schemaListKeywords = new Set(["allOf", "anyOf", "oneOf", "prefixItems"]);
const schemaMapKeywords = new Set([
  "$defs",
  "definitions",
  "dependencies",
  "dependentSchemas",
  "patternProperties",
  "properties",
]);

/** The keyword put beside each reference, so that following one can be counted. */
export const referenceMark = "cadre:reference";

/** A schema that kept the rules, or what is wrong with it. */
export interface CheckedSchema {
  readonly violations: readonly FieldViolation[];
  /** The schema's patterns by their source. */
  readonly patterns: ReadonlyMap<string, LinearPattern>;
  /** The schema with `referenceMark` beside each reference. */
  readonly marked: JsonValue;
}

/**
 * Checks a JSON Schema against `jsonSchemaLimits`, compiles its patterns, and
 * refuses references that lead out of the schema, or into a part of it that is
 * no schema and so was not checked. Whether the keywords' values are valid is
 * the meta-schema's question, not asked here.
 *
 * @param field the path of the schema in the request, put before each JSON Pointer
 */
export function checkSchema(schema: JsonObject, field: string): CheckedSchema {
  if (depthExceeds(schema, jsonSchemaLimits.maxDepth)) {
    return refused(field, `is nested more than ${jsonSchemaLimits.maxDepth} deep`);
  }
  if (Buffer.byteLength(JSON.stringify(schema)) > jsonSchemaLimits.maxBytes) {
    return refused(field, `is larger than ${jsonSchemaLimits.maxBytes} bytes`);
  }
  return new SchemaWalk(field).walk(schema);
}

function refused(field: string, message: string): CheckedSchema {
  return { violations: [{ field, message, rule: "json_schema" }], patterns: new Map(), marked: false };
}

class SchemaWalk {
  readonly #field: string;
  readonly #violations: FieldViolation[] = [];
  readonly #patterns = new Map<string, LinearPattern>();
  readonly #pointers = new Set<string>();
  readonly #anchors = new Set<string>();
  readonly #references: { readonly target: string; readonly pointer: string }[] = [];

  constructor(field: string) {
    this.#field = field;
  }

  walk(schema: JsonObject): CheckedSchema {
    const marked = this.#visit(schema, "");
    if (this.#pointers.size > jsonSchemaLimits.maxSubschemas) {
      this.#refuse("", `has more than ${jsonSchemaLimits.maxSubschemas} subschemas`);
    }
    for (const { target, pointer } of this.#references) {
      if (!target.startsWith("#")) this.#refuse(pointer, "must refer into this schema, with #");
      else if (!this.#isKnown(target.slice(1))) this.#refuse(pointer, "refers to no subschema of this schema");
    }
    return { violations: this.#violations, patterns: this.#patterns, marked };
  }

  #isKnown(fragment: string): boolean {
    if (fragment === "" || this.#anchors.has(fragment)) return true;
    try {
      return this.#pointers.has(decodeURIComponent(fragment));
    } catch {
      // Not a URI fragment, so it refers to nothing.
      return false;
    }
  }

  #refuse(pointer: string, message: string): void {
    if (this.#violations.length >= jsonSchemaLimits.maxViolations) return;
    this.#violations.push({ field: this.#field + pointer, message, rule: "json_schema" });
  }

  #visit(schema: JsonValue, pointer: string): JsonValue {
    if (!isObject(schema)) return schema;
    this.#pointers.add(pointer);
    const marked: Record<string, JsonValue> = {};
    for (const [keyword, value] of Object.entries(schema)) {
      set(marked, keyword, this.#keyword(keyword, value, pointer, `${pointer}/${escapePointer(keyword)}`));
    }
    if (Object.hasOwn(marked, "$ref") || Object.hasOwn(marked, "$dynamicRef")) marked[referenceMark] = true;
    return marked;
  }

  #keyword(keyword: string, value: JsonValue, schemaPointer: string, pointer: string): JsonValue {
    switch (keyword) {
      case "$ref":
      case "$dynamicRef":
        if (typeof value === "string") this.#references.push({ target: value, pointer });
        return value;
      case "$anchor":
      case "$dynamicAnchor":
        if (typeof value === "string") this.#anchors.add(value);
        return value;
      case "$schema":
        if (value !== draft && value !== `${draft}#`) this.#refuse(pointer, `must be ${draft}`);
        return value;
      case "$id":
        if (schemaPointer !== "") this.#refuse(pointer, "must stand at the schema's root only");
        return value;
      case "$async":
      case referenceMark:
        this.#refuse(pointer, "is not a keyword of JSON Schema");
        return value;
      case "pattern":
        this.#pattern(value, pointer);
        return value;
    }
    if (schemaKeywords.has(keyword)) return this.#visit(value, pointer);
    if (schemaListKeywords.has(keyword) && Array.isArray(value)) {
      return value.map((item, index) => this.#visit(item, `${pointer}/${index}`));
    }
    if (schemaMapKeywords.has(keyword) && isObject(value)) {
      const marked: Record<string, JsonValue> = {};
      for (const [name, item] of Object.entries(value)) {
        const place = `${pointer}/${escapePointer(name)}`;
        if (keyword === "patternProperties") this.#pattern(name, place);
        set(marked, name, this.#visit(item, place));
      }
      return marked;
    }
    return value;
  }

  #pattern(source: JsonValue, pointer: string): void {
    if (typeof source !== "string" || this.#patterns.has(source)) return;
    if (source.length > jsonSchemaLimits.maxPatternLength) {
      this.#refuse(pointer, `pattern is longer than ${jsonSchemaLimits.maxPatternLength} characters`);
      return;
    }
    try {
      this.#patterns.set(source, compilePattern(source));
    } catch (error) {
      if (!(error instanceof PatternError)) throw error;
      this.#refuse(pointer, `pattern ${error.message}`);
    }
  }
}

/** Sets an own property, `__proto__` too. */
function set(target: Record<string, JsonValue>, name: string, value: JsonValue): void {
  Object.defineProperty(target, name, { value, enumerable: true, configurable: true, writable: true });
}

/** Whether JSON nests objects and arrays deeper than `maxDepth`. Looks no deeper than that. */
export function depthExceeds(value: unknown, maxDepth: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (maxDepth === 0) return true;
  return Object.values(value).some((child) => depthExceeds(child, maxDepth - 1));
}

/** A name as a part of a JSON Pointer (RFC 6901). */
export function escapePointer(name: string): string {
  return name.replaceAll("~", "~0").replaceAll("/", "~1");
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
