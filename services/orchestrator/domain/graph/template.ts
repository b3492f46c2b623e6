import { isDeeperThan, type Json, type JsonObject } from "../json.ts";
import { graphLimits } from "./graph.ts";
import { memberPath, Problems } from "./problems.ts";
import { parseReference, type Reference, valueOf } from "./reference.ts";
import type { Scope } from "./scope.ts";

/** JSON in which `{"$ref": …}` stands for a value of the run. Compiled once, filled in often. */
export type Template =
  | { readonly kind: "constant"; readonly value: Json }
  | { readonly kind: "reference"; readonly reference: Reference; readonly path: string }
  | { readonly kind: "array"; readonly items: readonly Template[] }
  | { readonly kind: "object"; readonly members: readonly (readonly [name: string, value: Template])[] };

/**
 * Compiles a template.
 *
 * @param path where it stands, for example `steps[3].tool.arguments`
 * @throws AppError INVALID_GRAPH for a malformed reference, a `$` key that means nothing, or too much nesting
 */
export function compileTemplate(json: Json, path: string): Template {
  const problems = new Problems();
  const template = readTemplate(json, path, problems);
  problems.throwIfFound();
  return template;
}

/** Compiles a template and notes what is wrong with it; what cannot be read becomes null. */
export function readTemplate(json: Json, path: string, problems: Problems): Template {
  return read(json, path, problems, graphLimits.templateDepth);
}

/**
 * The JSON that a template stands for. A template without references gives the
 * very value that it was made of, not a copy; so do references.
 *
 * @throws AppError EVALUATION_FAILED for a reference that has no value
 */
export function resolve(template: Template, scope: Scope): Json {
  switch (template.kind) {
    case "constant":
      return template.value;
    case "reference":
      return valueOf(template.reference, scope);
    case "array":
      return template.items.map((item) => resolve(item, scope));
    case "object":
      return Object.fromEntries(template.members.map(([name, value]) => [name, resolve(value, scope)]));
  }
}

/** A reference of a template, and where in the graph it stands. */
export interface PlacedReference {
  readonly reference: Reference;
  readonly path: string;
}

/** The references of a template, in order. */
export function* referencesOf(template: Template): Generator<PlacedReference> {
  switch (template.kind) {
    case "constant":
      return;
    case "reference":
      yield template;
      return;
    case "array":
      for (const item of template.items) yield* referencesOf(item);
      return;
    case "object":
      for (const [, value] of template.members) yield* referencesOf(value);
  }
}

function read(json: Json, path: string, problems: Problems, depthLeft: number): Template {
  if (typeof json !== "object" || json === null) return { kind: "constant", value: json };
  if (depthLeft === 0) {
    problems.add(path, `is nested more than ${graphLimits.templateDepth} deep`, "template_depth");
    return { kind: "constant", value: null };
  }
  if (Array.isArray(json)) {
    const items = (json as readonly Json[]).map((item, at) => read(item, `${path}[${at}]`, problems, depthLeft - 1));
    if (!items.every((item) => item.kind === "constant")) return { kind: "array", items };
    const unchanged = items.every(({ value }, at) => value === json[at]);
    return { kind: "constant", value: unchanged ? json : items.map(({ value }) => value) };
  }
  const object = json as JsonObject;
  const special = Object.keys(object).find((key) => key.startsWith("$"));
  if (special !== undefined) return readSpecial(object, special, path, problems, depthLeft);
  const members = Object.entries(object).map(
    ([name, value]) => [name, read(value, memberPath(path, name), problems, depthLeft - 1)] as const,
  );
  const constants = members.flatMap(([name, member]) =>
    member.kind === "constant" ? [[name, member.value] as const] : [],
  );
  if (constants.length < members.length) return { kind: "object", members };
  const unchanged = constants.every(([name, value]) => value === object[name]);
  return { kind: "constant", value: unchanged ? object : Object.fromEntries(constants) };
}

function readSpecial(object: JsonObject, key: string, path: string, problems: Problems, depthLeft: number): Template {
  const value = object[key] ?? null;
  const nothing: Template = { kind: "constant", value: null };
  const alone = Object.keys(object).length === 1;
  if (alone && key === "$literal")
    return readLiteral(value, path, problems, depthLeft) ? { kind: "constant", value } : nothing;
  if (!alone || key !== "$ref") {
    const shown = JSON.stringify(key.slice(0, 64));
    problems.add(
      path,
      key === "$ref" || key === "$literal"
        ? `${shown} must be the only key`
        : `${shown} means nothing here; a value with such a key stands in {"$literal": …}`,
      "template_key",
    );
    return nothing;
  }
  if (typeof value !== "string") {
    problems.add(path, "$ref must be a text", "reference");
    return nothing;
  }
  const reference = parseReference(value);
  if (typeof reference !== "string") return { kind: "reference", reference, path };
  problems.add(path, `${JSON.stringify(value.slice(0, 64))} ${reference}`, "reference");
  return nothing;
}

function readLiteral(value: Json, path: string, problems: Problems, depthLeft: number): boolean {
  if (!isDeeperThan(value, depthLeft)) return true;
  problems.add(path, `is nested more than ${graphLimits.templateDepth} deep`, "template_depth");
  return false;
}
