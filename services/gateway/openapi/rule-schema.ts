import { durationMs } from "@bufbuild/protobuf/wkt";
import type { FieldRules, StringRules } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import type { JsonSchema } from "./json-schema.ts";

/** What the rules of a field add to its schema. */
export interface RuleSchema {
  /** Of the field itself. */
  readonly own: JsonSchema;
  /** Of each item or value. */
  readonly items: JsonSchema;
  /** Of each key of a map. */
  readonly keys: JsonSchema;
  /** Rules that JSON Schema cannot say of a text, in words. */
  readonly words: readonly string[];
}

/**
 * Says `buf.validate` rules as JSON Schema. What it cannot say is left out:
 * the schema may take more than the server, never less.
 */
export function toRuleSchema(rules: FieldRules | undefined): RuleSchema {
  const none: RuleSchema = { own: {}, items: {}, keys: {}, words: [] };
  const { type } = rules ?? {};
  switch (type?.case) {
    case "string":
      return { ...none, own: ofString(type.value) };
    case "int32":
    case "uint32":
    case "sint32":
    case "fixed32":
    case "sfixed32":
    case "float":
    case "double":
      return { ...none, own: ofNumber(type.value) };
    case "int64":
    case "uint64":
    case "sint64":
    case "fixed64":
    case "sfixed64":
      return { ...none, words: inWords(boundsOf(type.value), String) };
    case "duration":
      return { ...none, words: inWords(boundsOf(type.value), (bound) => `${durationMs(bound) / 1_000} seconds`) };
    case "repeated": {
      const { minItems, maxItems, unique, items } = type.value;
      const own: JsonSchema = {};
      if (minItems > 0n) own.minItems = Number(minItems);
      if (maxItems > 0n) own.maxItems = Number(maxItems);
      if (unique) own.uniqueItems = true;
      return { ...none, own, items: toRuleSchema(items).own };
    }
    case "map": {
      const { minPairs, maxPairs, keys, values } = type.value;
      const own: JsonSchema = {};
      if (minPairs > 0n) own.minProperties = Number(minPairs);
      if (maxPairs > 0n) own.maxProperties = Number(maxPairs);
      return { ...none, own, keys: toRuleSchema(keys).own, items: toRuleSchema(values).own };
    }
    default:
      return none;
  }
}

function ofString(rules: StringRules): JsonSchema {
  const schema: JsonSchema = {};
  const min = rules.len || rules.minLen;
  // A character has a byte at least, so the tighter limit in bytes holds for characters, too.
  const max = rules.len || rules.maxLen || rules.maxBytes;
  if (min > 0n) schema.minLength = Number(min);
  if (max > 0n) schema.maxLength = Number(max);
  if (rules.pattern !== "") schema.pattern = rules.pattern;
  if (rules.in.length > 0) schema.enum = [...rules.in];
  if (rules.const !== "") schema.const = rules.const;
  const format = rules.wellKnown.value === true ? stringFormats[rules.wellKnown.case ?? ""] : undefined;
  if (format !== undefined) schema.format = format;
  const example = exampleOf(rules.pattern);
  if (example !== undefined) schema.examples = [example];
  return schema;
}

const stringFormats: Readonly<Record<string, string>> = {
  email: "email",
  hostname: "hostname",
  ipv4: "ipv4",
  ipv6: "ipv6",
  uri: "uri",
  uriRef: "uri-reference",
  uuid: "uuid",
};

/** An id of ours, from the pattern that each of them has. */
function exampleOf(pattern: string): string | undefined {
  const prefix = /^\^([a-z]+_)\[0-9a-hjkmnp-tv-z\]\{26\}\$$/.exec(pattern)?.[1];
  return prefix === undefined ? undefined : `${prefix}01jd8z3q5vf7gs2k4m6n8p0r1t`;
}

interface Bounds<T> {
  readonly lessThan: { readonly case: "lt" | "lte" | undefined; readonly value?: T };
  readonly greaterThan: { readonly case: "gt" | "gte" | undefined; readonly value?: T };
}

/** The rules of numbers and durations have the same form, each with its own type. */
function boundsOf<T>(rules: {
  readonly lessThan: { readonly case: "lt" | "lte" | undefined; readonly value?: T } | object;
  readonly greaterThan: { readonly case: "gt" | "gte" | undefined; readonly value?: T } | object;
}): Bounds<T> {
  return rules as Bounds<T>;
}

function ofNumber(rules: Parameters<typeof boundsOf<number>>[0]): JsonSchema {
  const { lessThan, greaterThan } = boundsOf<number>(rules);
  const schema: JsonSchema = {};
  if (lessThan.case === "lt") schema.exclusiveMaximum = lessThan.value;
  if (lessThan.case === "lte") schema.maximum = lessThan.value;
  if (greaterThan.case === "gt") schema.exclusiveMinimum = greaterThan.value;
  if (greaterThan.case === "gte") schema.minimum = greaterThan.value;
  return schema;
}

function inWords<T>({ lessThan, greaterThan }: Bounds<T>, toText: (bound: T) => string): string[] {
  const words: string[] = [];
  if (greaterThan.value !== undefined && greaterThan.case !== undefined) {
    words.push(`${greaterThan.case === "gt" ? "More than" : "At least"} ${toText(greaterThan.value)}.`);
  }
  if (lessThan.value !== undefined && lessThan.case !== undefined) {
    words.push(`${lessThan.case === "lt" ? "Less than" : "At most"} ${toText(lessThan.value)}.`);
  }
  return words;
}
