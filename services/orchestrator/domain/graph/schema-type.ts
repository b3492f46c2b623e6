/**
 * What JSON Schemas say about values before there are any. Every answer errs on
 * one side: "cannot be" is certain, "can be" is not. Keywords that are not
 * looked at (`not`, `if`, formats, ranges), references that lead in circles and
 * schemas that are too intricate count as "can be".
 */
import type { Json, JsonObject } from "../json.ts";
import { memberOf } from "./reference.ts";

/** What is known of a value. */
export type SchemaType =
  | { readonly kind: "any" }
  /** A part of a JSON Schema; `root` is the whole, into which its references lead. */
  | { readonly kind: "schema"; readonly schema: Json; readonly root: Json }
  | { readonly kind: "constant"; readonly value: Json }
  /** An object with these members and no others. */
  | { readonly kind: "object"; readonly members: ReadonlyMap<string, SchemaType> }
  | { readonly kind: "tuple"; readonly items: readonly SchemaType[] }
  | { readonly kind: "list"; readonly item: SchemaType }
  /** One of these. */
  | { readonly kind: "union"; readonly options: readonly SchemaType[] }
  /** All of these at once. */
  | { readonly kind: "intersection"; readonly parts: readonly SchemaType[] };

/** The kinds of JSON values. */
export type JsonKind = "null" | "boolean" | "integer" | "fraction" | "string" | "array" | "object";

export const anyType: SchemaType = { kind: "any" };
export const nullType: SchemaType = { kind: "constant", value: null };

/** The type of the values that match a schema; of any, without one. */
export function typeOfSchema(schema: JsonObject | undefined): SchemaType {
  return schema === undefined ? anyType : { kind: "schema", schema, root: schema };
}

/** The kind of a value. */
export function jsonKind(value: Json): JsonKind {
  if (value === null) return "null";
  switch (typeof value) {
    case "number":
      return Number.isInteger(value) ? "integer" : "fraction";
    case "boolean":
      return "boolean";
    case "string":
      return "string";
    default:
      return Array.isArray(value) ? "array" : "object";
  }
}

const kinds: readonly JsonKind[] = ["null", "boolean", "integer", "fraction", "string", "array", "object"];

/** How many schemas all questions about one graph may look at. */
const maxVisits = 50_000;
/** How deep schemas are followed for one question. */
const maxDepth = 24;

/** Asks questions about types, within a budget for all of them. */
export class SchemaReader {
  #visitsLeft = maxVisits;

  /** The kinds that values of a type may have. */
  kindsOf(type: SchemaType): ReadonlySet<JsonKind> {
    return new Set(kinds.filter((kind) => this.canBe(type, kind)));
  }

  /** Whether values of a type may have a kind. */
  canBe(type: SchemaType, kind: JsonKind, depth = 0): boolean {
    if (this.#isTooMuch(depth)) return true;
    switch (type.kind) {
      case "any":
        return true;
      case "constant":
        return jsonKind(type.value) === kind;
      case "object":
        return kind === "object";
      case "tuple":
      case "list":
        return kind === "array";
      case "union":
        return type.options.some((option) => this.canBe(option, kind, depth + 1));
      case "intersection":
        return type.parts.every((part) => this.canBe(part, kind, depth + 1));
      case "schema":
        return this.#schemaCanBe(type, kind, depth);
    }
  }

  /** The type of a member or an element; undefined if there can be none. */
  member(type: SchemaType, key: string | number, depth = 0): SchemaType | undefined {
    if (this.#isTooMuch(depth)) return anyType;
    switch (type.kind) {
      case "any":
        return anyType;
      case "constant": {
        const value = memberOf(type.value, key);
        return value === undefined ? undefined : { kind: "constant", value };
      }
      case "object":
        return type.members.get(String(key));
      case "tuple":
        return typeof key === "number" ? type.items[key] : undefined;
      case "list":
        return typeof key === "number" ? type.item : undefined;
      case "union":
        return toUnion(type.options.flatMap((option) => this.member(option, key, depth + 1) ?? []));
      case "intersection":
        return toIntersection(type.parts.map((part) => this.member(part, key, depth + 1)));
      case "schema":
        return this.#schemaMember(type, key, depth);
    }
  }

  /** The type of any element of a list. */
  element(type: SchemaType): SchemaType {
    switch (type.kind) {
      case "list":
        return type.item;
      case "tuple":
        return toUnion(type.items) ?? anyType;
      case "constant":
        return Array.isArray(type.value)
          ? (toUnion(type.value.map((value: Json) => ({ kind: "constant", value }))) ?? anyType)
          : anyType;
      case "schema": {
        const { schema, root } = type;
        if (!isObject(schema) || Object.hasOwn(schema, "prefixItems")) return anyType;
        return schema["items"] === undefined ? anyType : { kind: "schema", schema: schema["items"], root };
      }
      default:
        return anyType;
    }
  }

  /** Members that values of a type must have. Those that only some alternatives demand are left out. */
  required(type: SchemaType, depth = 0): ReadonlySet<string> {
    const names = new Set<string>();
    if (this.#isTooMuch(depth)) return names;
    const add = (more: SchemaType) => {
      for (const name of this.required(more, depth + 1)) names.add(name);
    };
    if (type.kind === "object") for (const name of type.members.keys()) names.add(name);
    if (type.kind === "intersection") for (const part of type.parts) add(part);
    if (type.kind === "schema" && isObject(type.schema)) {
      for (const name of toList(type.schema["required"])) if (typeof name === "string") names.add(name);
      for (const part of toList(type.schema["allOf"])) add({ ...type, schema: part });
      const target = resolvePointer(type);
      if (target !== undefined) add(target);
    }
    return names;
  }

  /** Values of which those of a type must be one; undefined if none are listed. */
  listed(type: SchemaType, depth = 0): readonly Json[] | undefined {
    if (type.kind === "constant") return [type.value];
    if (type.kind !== "schema" || !isObject(type.schema) || this.#isTooMuch(depth)) return undefined;
    if (type.schema["const"] !== undefined) return [type.schema["const"]];
    if (Array.isArray(type.schema["enum"])) return type.schema["enum"] as readonly Json[];
    const target = resolvePointer(type);
    return target === undefined ? undefined : this.listed(target, depth + 1);
  }

  #isTooMuch(depth: number): boolean {
    this.#visitsLeft -= 1;
    return this.#visitsLeft < 0 || depth > maxDepth;
  }

  #schemaCanBe(type: SchemaType & { kind: "schema" }, kind: JsonKind, depth: number): boolean {
    const { schema, root } = type;
    if (!isObject(schema)) return schema !== false;
    const part = (of: Json): boolean => this.canBe({ kind: "schema", schema: of, root }, kind, depth + 1);
    const types = schema["type"];
    if (types !== undefined && !toList(types).some((name) => hasKind(name, kind))) return false;
    if (schema["const"] !== undefined && jsonKind(schema["const"]) !== kind) return false;
    if (Array.isArray(schema["enum"]) && !schema["enum"].some((value: Json) => jsonKind(value) === kind)) return false;
    if (!toList(schema["allOf"]).every(part)) return false;
    for (const keyword of ["anyOf", "oneOf"]) {
      const options = schema[keyword];
      if (Array.isArray(options) && !options.some(part)) return false;
    }
    const target = resolvePointer(type);
    return target === undefined || this.canBe(target, kind, depth + 1);
  }

  #schemaMember(type: SchemaType & { kind: "schema" }, key: string | number, depth: number): SchemaType | undefined {
    const { schema, root } = type;
    if (!isObject(schema)) return schema === false ? undefined : anyType;
    if (!this.canBe(type, typeof key === "number" ? "array" : "object", depth + 1)) return undefined;
    const at = (of: Json): SchemaType => ({ kind: "schema", schema: of, root });
    const parts: (SchemaType | undefined)[] = [];
    const own = typeof key === "number" ? ownElement(schema, key) : ownMember(schema, key);
    if (own === false) return undefined;
    if (own !== undefined) parts.push(at(own));
    if (schema["const"] !== undefined) parts.push(this.member({ kind: "constant", value: schema["const"] }, key));
    for (const part of toList(schema["allOf"])) parts.push(this.member(at(part), key, depth + 1));
    for (const keyword of ["anyOf", "oneOf"]) {
      const options = schema[keyword];
      if (Array.isArray(options)) {
        parts.push(toUnion(options.flatMap((option: Json) => this.member(at(option), key, depth + 1) ?? [])));
      }
    }
    const target = resolvePointer(type);
    if (target !== undefined) parts.push(this.member(target, key, depth + 1));
    return toIntersection(parts);
  }
}

/** One of the options; undefined if there is none. */
export function toUnion(options: readonly SchemaType[]): SchemaType | undefined {
  if (options.length < 2) return options[0];
  return options.some(({ kind }) => kind === "any") ? anyType : { kind: "union", options };
}

/** All of the parts; undefined if one is. */
function toIntersection(parts: readonly (SchemaType | undefined)[]): SchemaType | undefined {
  const known: SchemaType[] = [];
  for (const part of parts) {
    if (part === undefined) return undefined;
    if (part.kind !== "any") known.push(part);
  }
  return known.length < 2 ? (known[0] ?? anyType) : { kind: "intersection", parts: known };
}

/** What an object schema itself says of a member: false if it may not be there, undefined if nothing. */
function ownMember(schema: JsonObject, key: string): Json | undefined {
  const properties = schema["properties"];
  if (isObject(properties) && Object.hasOwn(properties, key)) return properties[key];
  // Whether one of the patterns matches is not looked at.
  const patterns = schema["patternProperties"];
  if (isObject(patterns) && Object.keys(patterns).length > 0) return undefined;
  return schema["additionalProperties"];
}

function ownElement(schema: JsonObject, index: number): Json | undefined {
  const { maxItems, prefixItems, items } = schema;
  if (typeof maxItems === "number" && index >= maxItems) return false;
  const first = toList(prefixItems);
  return index < first.length ? first[index] : items;
}

/** Where `$ref` leads, if that is a place in the schema by pointer. */
function resolvePointer({ schema, root }: SchemaType & { kind: "schema" }): SchemaType | undefined {
  const reference = isObject(schema) ? schema["$ref"] : undefined;
  if (typeof reference !== "string" || !/^#(\/|$)/.test(reference)) return undefined;
  let at: Json | undefined = root;
  for (const part of reference.split("/").slice(1)) {
    const key = decodePointer(part);
    if (at === undefined || key === undefined) return undefined;
    at = memberOf(at, Array.isArray(at) ? Number(key) : key);
  }
  return at === undefined ? undefined : { kind: "schema", schema: at, root };
}

function decodePointer(part: string): string | undefined {
  try {
    return decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
  } catch {
    // Not a URI fragment; the check of the schema has said so.
    return undefined;
  }
}

function hasKind(name: Json, kind: JsonKind): boolean {
  return name === kind || (name === "number" && (kind === "integer" || kind === "fraction"));
}

function toList(value: Json | undefined): readonly Json[] {
  if (value === undefined) return [];
  return Array.isArray(value) ? (value as readonly Json[]) : [value];
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
