/** Query parameters as Protobuf JSON. */
import { type DescField, type DescMessage, type JsonObject, type JsonValue, ScalarType } from "@bufbuild/protobuf";
import { AppError } from "../../runtime/errors/app-error.ts";

/** What the path and the query give for one field: texts, or, for a map, the texts of each key. */
export interface GivenTexts {
  readonly texts: readonly string[];
  readonly entries: ReadonlyMap<string, readonly string[]>;
}

/** Splits a query into its parameters, in the order of their first occurrence. */
export function parseQuery(query: string): ReadonlyMap<string, readonly string[]> {
  const parameters = new Map<string, string[]>();
  for (const pair of query.split("&")) {
    if (pair === "") continue;
    const [name = "", ...rest] = pair.split("=");
    const values = parameters.get(decodeQuery(name)) ?? [];
    values.push(decodeQuery(rest.join("=")));
    parameters.set(decodeQuery(name), values);
  }
  return parameters;
}

function decodeQuery(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    throw malformed("", "the query is not percent-encoded UTF-8");
  }
}

/** A parameter's name taken apart: `labels[team]` gives `team` of the map `labels`. */
export function splitMapKey(name: string): { readonly field: string; readonly key: string | undefined } {
  const [, field = name, key] = /^([^[]+)\[(.*)\]$/s.exec(name) ?? [];
  return { field, key };
}

/** The path in proto names of a query parameter; `undefined` if there is no such field. */
export function toFieldPath(message: DescMessage, name: string): string | undefined {
  const [first, ...rest] = name.split(".");
  const field = message.fields.find((candidate) => candidate.name === first || candidate.jsonName === first);
  if (field === undefined) return undefined;
  if (rest.length === 0) return field.name;
  if (field.fieldKind !== "message") return undefined;
  const path = toFieldPath(field.message, rest.join("."));
  return path === undefined ? undefined : `${field.name}.${path}`;
}

/** The Protobuf JSON of a message whose fields are given as texts, by their paths. */
export function toJsonObject(message: DescMessage, bound: ReadonlyMap<string, GivenTexts>): JsonObject {
  const root: JsonObject = {};
  for (const [path, given] of bound) {
    const names = path.split(".");
    const last = names.pop() ?? "";
    let desc = message;
    let object = root;
    for (const name of names) {
      const field = desc.fields.find((candidate) => candidate.name === name);
      if (field?.fieldKind !== "message") throw new TypeError(`no message at ${path}`);
      desc = field.message;
      const nested = object[name] ?? {};
      object[name] = nested;
      object = nested as JsonObject;
    }
    const field = desc.fields.find((candidate) => candidate.name === last);
    if (field === undefined) throw new TypeError(`no field at ${path}`);
    object[last] = toFieldJson(field, path, given);
  }
  return root;
}

/** The Protobuf JSON of a field that is given as texts. */
function toFieldJson(field: DescField, path: string, { texts, entries }: GivenTexts): JsonValue {
  if (field.fieldKind === "map") {
    if (texts.length > 0) throw malformed(path, `is given by its keys, as ${path}[key]=value`);
    const type = { kind: field.mapKind, scalar: field.scalar, message: field.message };
    return Object.fromEntries(
      [...entries].map(([key, values]) => [key, toValueJson(type, path, onlyOne(`${path}[${key}]`, values))]),
    );
  }
  if (entries.size > 0) throw malformed(path, "has no keys");
  if (field.fieldKind === "list") {
    const type = { kind: field.listKind, scalar: field.scalar, message: field.message };
    return texts.map((text) => toValueJson(type, path, text));
  }
  const type = { kind: field.fieldKind, scalar: field.scalar, message: field.message };
  return toValueJson(type, path, onlyOne(path, texts));
}

function onlyOne(path: string, texts: readonly string[]): string {
  const [text] = texts;
  if (text === undefined || texts.length > 1) throw malformed(path, "is given more than once");
  return text;
}

interface ValueType {
  readonly kind: "scalar" | "enum" | "message";
  readonly scalar: ScalarType | undefined;
  readonly message: DescMessage | undefined;
}

/** Protobuf JSON takes numbers as text, too, so only booleans must be told apart. */
function toValueJson(type: ValueType, path: string, text: string): JsonValue {
  switch (type.kind) {
    case "scalar":
      return type.scalar === ScalarType.BOOL ? toBoolean(path, text) : text;
    case "enum":
      return text;
    case "message": {
      const { typeName, fields } = type.message ?? { typeName: "", fields: [] };
      if (textualMessages.has(typeName)) return text;
      const wrapped = /^google\.protobuf\.\w+Value$/.test(typeName) ? fields[0]?.scalar : undefined;
      if (wrapped !== undefined) return wrapped === ScalarType.BOOL ? toBoolean(path, text) : text;
      throw malformed(path, "cannot be given in the query");
    }
  }
}

/** Messages whose Protobuf JSON is a text. */
const textualMessages: ReadonlySet<string> = new Set([
  "google.protobuf.Timestamp",
  "google.protobuf.Duration",
  "google.protobuf.FieldMask",
]);

function toBoolean(path: string, text: string): boolean {
  if (text !== "true" && text !== "false") throw malformed(path, "must be true or false");
  return text === "true";
}

/** The failure of a request whose field at `path` cannot be taken. Never say its value. */
export function malformed(path: string, message: string, cause?: unknown): AppError {
  return new AppError("MALFORMED_MESSAGE", path === "" ? message : `${path}: ${message}`, {
    cause,
    violations: path === "" ? [] : [{ field: path, message }],
  });
}
