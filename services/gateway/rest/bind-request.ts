import {
  create,
  type DescField,
  type DescMessage,
  fromJson,
  isFieldSet,
  type JsonObject,
  type JsonValue,
  type Message,
  mergeFromJson,
  ScalarType,
} from "@bufbuild/protobuf";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { PathVariables } from "./path-template.ts";
import type { Route } from "./route.ts";

/** The body's nesting is bounded where it is read; two levels more than that are ours. */
const readOptions = { recursionLimit: 70 } as const;

/** What of an HTTP request is bound to a method's input. */
export interface RequestParts {
  readonly variables: PathVariables;
  /** The text after `?`, as it came; empty for none. */
  readonly query: string;
  /** The body's JSON; `undefined` for none. */
  readonly body: JsonValue | undefined;
}

/**
 * Makes a method's input from a request, by the rules of `google.api.http` and
 * Protobuf JSON: the path's variables, then the body, then the query, each
 * field from one of them only. Fields go by their proto names (their JSON
 * names are taken, too), nested ones in the query as `a.b=`, repeated ones by
 * repetition.
 *
 * @throws AppError MALFORMED_MESSAGE naming the field, never its value
 */
export function bindRequest(route: Route, parts: RequestParts): Message {
  const { input } = route.method;
  const message = bindBody(route, parts.body);
  const bound = new Map<string, readonly string[]>();
  for (const [path, value] of parts.variables) bound.set(path, [value]);
  if (route.body.kind === "all") {
    for (const path of parts.variables.keys()) {
      if (isPresent(input, message, path)) throw malformed(path, "is given by the path, so leave it out of the body");
    }
  }
  for (const [name, values] of parseQuery(parts.query)) {
    const path = toFieldPath(input, name);
    if (path === undefined || route.body.kind === "all") throw malformed(name, "no such query parameter");
    if (parts.variables.has(path)) throw malformed(path, "is given by the path");
    if (route.body.kind === "field" && path.split(".")[0] === route.body.field.name) {
      throw malformed(path, "is given by the body");
    }
    if (bound.has(path)) throw malformed(path, "is given under two names");
    bound.set(path, values);
  }
  if (bound.size === 0) return message;
  const json = toJsonObject(input, bound);
  return read(input, json, () => mergeFromJson(input, message, json));
}

function bindBody({ method, body }: Route, json: JsonValue | undefined): Message {
  const { input } = method;
  if (json === undefined) return create(input);
  switch (body.kind) {
    case "none":
      throw malformed("", "the route takes no body");
    case "all":
      return read(input, json, () => fromJson(input, json, readOptions));
    case "field": {
      const object = { [body.field.name]: json };
      return read(input, object, () => fromJson(input, object, readOptions));
    }
  }
}

/** Splits a query into its parameters, in the order of their first occurrence. */
function parseQuery(query: string): ReadonlyMap<string, readonly string[]> {
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

/** The path in proto names of a query parameter; `undefined` if there is no such field. */
function toFieldPath(message: DescMessage, name: string): string | undefined {
  const [first, ...rest] = name.split(".");
  const field = message.fields.find((candidate) => candidate.name === first || candidate.jsonName === first);
  if (field === undefined) return undefined;
  if (rest.length === 0) return field.name;
  if (field.fieldKind !== "message") return undefined;
  const path = toFieldPath(field.message, rest.join("."));
  return path === undefined ? undefined : `${field.name}.${path}`;
}

function toJsonObject(message: DescMessage, bound: ReadonlyMap<string, readonly string[]>): JsonObject {
  const root: JsonObject = {};
  for (const [path, texts] of bound) {
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
    object[last] = toFieldJson(field, path, texts);
  }
  return root;
}

/** The Protobuf JSON of a field that is given as texts. */
function toFieldJson(field: DescField, path: string, texts: readonly string[]): JsonValue {
  if (field.fieldKind === "map") throw malformed(path, "cannot be given in the query");
  if (field.fieldKind === "list") {
    return texts.map((text) =>
      toValueJson({ kind: field.listKind, scalar: field.scalar, message: field.message }, path, text),
    );
  }
  const [text] = texts;
  if (text === undefined || texts.length > 1) throw malformed(path, "is given more than once");
  return toValueJson({ kind: field.fieldKind, scalar: field.scalar, message: field.message }, path, text);
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

function isPresent(desc: DescMessage, message: Message, path: string): boolean {
  const [name, ...rest] = path.split(".");
  const field = desc.fields.find((candidate) => candidate.name === name);
  if (field === undefined || !isFieldSet(message, field as DescField)) return false;
  if (rest.length === 0) return true;
  const nested = (message as unknown as Readonly<Record<string, unknown>>)[field.localName];
  return field.fieldKind === "message" && isPresent(field.message, nested as Message, rest.join("."));
}

/** Reads Protobuf JSON; where that fails, says at which field. */
function read(desc: DescMessage, json: JsonValue, reader: () => Message): Message {
  try {
    return reader();
  } catch (cause) {
    const fault = locateFault(desc, json) ?? { path: "", message: "the body does not match the message" };
    throw malformed(fault.path, fault.message, cause);
  }
}

interface Fault {
  readonly path: string;
  readonly message: string;
}

/**
 * Finds the first field of a JSON value that its message cannot take. The
 * reader's own message would repeat the value.
 */
function locateFault(desc: DescMessage, json: JsonValue): Fault | undefined {
  if (canRead(desc, json)) return undefined;
  if (typeof json !== "object" || json === null || Array.isArray(json) || hasOwnJson(desc)) {
    return { path: "", message: hasOwnJson(desc) ? `is no ${desc.name}` : "must be an object" };
  }
  const seen = new Set<DescField>();
  for (const [key, value] of Object.entries(json)) {
    const field = desc.fields.find((candidate) => candidate.name === key || candidate.jsonName === key);
    if (field === undefined) return { path: key.slice(0, 64), message: "no such field" };
    if (seen.has(field)) return { path: field.name, message: "is given under two names" };
    seen.add(field);
    if (canRead(desc, { [key]: value })) continue;
    const inner = locateInField(field, value);
    return { path: joinPath(field.name, inner?.path ?? ""), message: inner?.message ?? `is no ${typeNameOf(field)}` };
  }
  return { path: "", message: "fields exclude each other" };
}

function locateInField(field: DescField, value: JsonValue): Fault | undefined {
  if (field.fieldKind === "message") return locateFault(field.message, value);
  const nested = (field.fieldKind === "list" || field.fieldKind === "map") && field.message;
  if (!nested || typeof value !== "object" || value === null) return undefined;
  for (const [key, item] of Object.entries(value)) {
    const inner = locateFault(nested, item as JsonValue);
    if (inner === undefined) continue;
    const place = field.fieldKind === "list" ? `[${key}]` : `[${JSON.stringify(key.slice(0, 64))}]`;
    return { path: joinPath(place, inner.path), message: inner.message };
  }
  return undefined;
}

function canRead(desc: DescMessage, json: JsonValue): boolean {
  try {
    fromJson(desc, json, readOptions);
    return true;
  } catch {
    return false;
  }
}

/** Well-known types, of which most have a JSON form of their own. */
function hasOwnJson(desc: DescMessage): boolean {
  return desc.typeName.startsWith("google.protobuf.");
}

function joinPath(first: string, rest: string): string {
  if (rest === "" || rest.startsWith("[")) return `${first}${rest}`;
  return `${first}.${rest}`;
}

/** What a field takes, for people. */
function typeNameOf(field: DescField): string {
  switch (field.fieldKind) {
    case "list":
      return `list of ${field.enum?.name ?? field.message?.name ?? scalarName(field.scalar)}`;
    case "map":
      return `object of ${field.enum?.name ?? field.message?.name ?? scalarName(field.scalar)}`;
    case "enum":
      return field.enum.name;
    case "message":
      return field.message.name;
    case "scalar":
      return scalarName(field.scalar);
  }
}

function scalarName(scalar: ScalarType | undefined): string {
  return scalar === undefined ? "value" : (ScalarType[scalar] ?? "value").toLowerCase();
}

function malformed(path: string, message: string, cause?: unknown): AppError {
  return new AppError("MALFORMED_MESSAGE", path === "" ? message : `${path}: ${message}`, {
    cause,
    violations: path === "" ? [] : [{ field: path, message }],
  });
}
