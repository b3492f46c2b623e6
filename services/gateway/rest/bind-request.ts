import {
  create,
  type DescField,
  type DescMessage,
  fromJson,
  fromJsonString,
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

/** Nesting that a body may have; Protobuf's own readers stop at 100. */
const maxDepth = 64;

/** What of an HTTP request is bound to a method's input. */
export interface RequestParts {
  readonly variables: PathVariables;
  /** The text after `?`, as it came; empty for none. */
  readonly query: string;
  /** The body's text; empty for none. */
  readonly body: string;
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
  return read(input, toJsonObject(input, bound), (json) => mergeFromJson(input, message, json));
}

function bindBody({ method, body }: Route, text: string): Message {
  const { input } = method;
  if (body.kind === "none") {
    if (text !== "") throw malformed("", "the route takes no body");
    return create(input);
  }
  if (text === "") return create(input);
  assertModest(text);
  const target = body.kind === "all" ? input : body.field.fieldKind === "message" ? body.field.message : undefined;
  if (target !== undefined) {
    // Reading from text, unlike from a value, sees keys that come twice.
    const prefix = body.kind === "all" ? "" : body.field.name;
    const message = read(target, text, () => fromJsonString(target, text, { recursionLimit: maxDepth }), prefix);
    return body.kind === "all" ? message : create(input, { [body.field.localName]: message } as never);
  }
  const value = parseJson(text);
  const field = (body as { readonly field: DescField }).field;
  return read(input, { [field.name]: value }, (json) => fromJson(input, json, { recursionLimit: maxDepth }));
}

function parseJson(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    throw malformed("", "the body is no JSON");
  }
}

/** A body is small in values as it is in bytes: the work that it causes is bounded by both. */
const maxKeys = 10_000;
const maxValues = 100_000;

/**
 * Counts before anything is built: depth, keys and values of a JSON text that
 * need not be well-formed.
 *
 * @throws AppError MALFORMED_MESSAGE past a limit
 */
function assertModest(text: string): void {
  let depth = 0;
  let keys = 0;
  let values = 0;
  for (let index = 0; index < text.length; index += 1) {
    switch (text.charCodeAt(index)) {
      case 0x22: // "
        index = endOfString(text, index);
        break;
      case 0x7b: // {
      case 0x5b: // [
        depth += 1;
        if (depth > maxDepth) throw malformed("", `the body nests deeper than ${maxDepth} levels`);
        break;
      case 0x7d: // }
      case 0x5d: // ]
        depth -= 1;
        break;
      case 0x3a: // :
        keys += 1;
        if (keys > maxKeys) throw malformed("", `the body has more than ${maxKeys} keys`);
        break;
      case 0x2c: // ,
        values += 1;
        if (values > maxValues) throw malformed("", `the body has more than ${maxValues} values`);
        break;
    }
  }
}

function endOfString(text: string, start: number): number {
  for (let quote = text.indexOf('"', start + 1); quote !== -1; quote = text.indexOf('"', quote + 1)) {
    let backslashes = 0;
    while (text.charCodeAt(quote - 1 - backslashes) === 0x5c) backslashes += 1;
    if (backslashes % 2 === 0) return quote;
  }
  return text.length;
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
function read<S>(desc: DescMessage, source: S, reader: (source: S) => Message, prefix = ""): Message {
  try {
    return reader(source);
  } catch (cause) {
    const json = typeof source === "string" ? parseJson(source) : (source as JsonValue);
    const fault = locateFault(desc, json);
    if (fault === undefined) throw malformed("", "a key comes twice, or the body nests too deep", cause);
    throw malformed(joinPath(prefix, fault.path), fault.message, cause);
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
    fromJson(desc, json, { recursionLimit: maxDepth });
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
  if (first === "" || rest === "" || rest.startsWith("[")) return `${first}${rest}`;
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
