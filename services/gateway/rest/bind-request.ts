import {
  create,
  type DescField,
  type DescMessage,
  fromJson,
  isFieldSet,
  type JsonValue,
  type Message,
  mergeFromJson,
  ScalarType,
} from "@bufbuild/protobuf";
import type { PathVariables } from "./path-template.ts";
import { type GivenTexts, malformed, parseQuery, splitMapKey, toFieldPath, toJsonObject } from "./query-json.ts";
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
 * repetition, those of a map by their keys as `a[key]=`.
 *
 * @throws AppError MALFORMED_MESSAGE naming the field, never its value
 */
export function bindRequest(route: Route, parts: RequestParts): Message {
  const { input } = route.method;
  const message = bindBody(route, parts.body);
  const bound = new Map<string, GivenTexts>();
  for (const [path, value] of parts.variables) bound.set(path, { texts: [value], entries: new Map() });
  if (route.body.kind === "all") {
    for (const path of parts.variables.keys()) {
      if (isPresent(input, message, path)) throw malformed(path, "is given by the path, so leave it out of the body");
    }
  }
  for (const [name, values] of parseQuery(parts.query)) {
    const { field, key } = splitMapKey(name);
    const path = toFieldPath(input, field);
    if (path === undefined || route.body.kind === "all") throw malformed(name, "no such query parameter");
    if (parts.variables.has(path)) throw malformed(path, "is given by the path");
    if (route.body.kind === "field" && path.split(".")[0] === route.body.field.name) {
      throw malformed(path, "is given by the body");
    }
    const given = bound.get(path);
    if (given !== undefined && (key === undefined || given.entries.size === 0 || given.entries.has(key))) {
      throw malformed(path, "is given under two names");
    }
    bound.set(
      path,
      key === undefined
        ? { texts: values, entries: new Map() }
        : { texts: [], entries: new Map([...(given?.entries ?? []), [key, values]]) },
    );
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
