import type { JsonObject, JsonValue } from "../json.ts";
import { toJsonValue } from "../json.ts";
import { referenceJson, sourceOf } from "./reference.ts";

const maxDepth = 32;

/**
 * The JSON of a template: references become `{"$ref": …}`, everything else
 * follows the rules of `JSON.stringify`.
 *
 * @throws TypeError if something has no JSON
 */
export function templateJson(template: unknown): JsonValue {
  return convert(template, 0);
}

/** The JSON of a template that is an object. @throws TypeError if it is none */
export function templateObject(template: unknown, what: string): JsonObject {
  const json = templateJson(template);
  if (typeof json === "object" && json !== null && !Array.isArray(json)) return json;
  throw new TypeError(`${what} must be an object`);
}

function convert(template: unknown, depth: number): JsonValue {
  if (typeof template !== "object" || template === null) return toJsonValue(template);
  const source = sourceOf(template);
  if (source !== undefined) return referenceJson(source);
  if (depth === maxDepth) throw new TypeError(`a template is nested more than ${maxDepth} deep`);
  if (Array.isArray(template)) return template.map((item) => convert(item, depth + 1));
  const own = "toJSON" in template && typeof template.toJSON === "function" ? template.toJSON : undefined;
  if (own !== undefined) return convert(own.call(template), depth + 1);
  const members = Object.entries(template).filter(([, member]) => member !== undefined);
  // Keys with a $ mean something in templates; as data they stand in a $literal.
  if (members.some(([name]) => name.startsWith("$"))) return { $literal: withoutReferences(template) };
  return Object.fromEntries(members.map(([name, member]) => [name, convert(member, depth + 1)]));
}

function withoutReferences(data: object): JsonValue {
  const text = JSON.stringify(data, function (this: Record<string, unknown>, name, part: unknown) {
    // The part itself has become `{"$ref": …}` by now.
    const original = this[name];
    if (typeof original === "object" && original !== null && sourceOf(original) !== undefined) {
      throw new TypeError("an object with a key that begins with $ can hold no reference");
    }
    return part;
  });
  return JSON.parse(text) as JsonValue;
}
