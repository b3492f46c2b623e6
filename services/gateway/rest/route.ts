import {
  type DescField,
  type DescMessage,
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type DescOneof,
  type DescService,
  getOption,
  hasOption,
} from "@bufbuild/protobuf";
import { event_stream } from "@cadre/gen/cadre/options/v1/options_pb";
import { http } from "@cadre/gen/google/api/annotations_pb";
import type { HttpRule } from "@cadre/gen/google/api/http_pb";
import { isServerStreaming, isUnary } from "../contract/method-kind.ts";
import { type PathTemplate, parsePathTemplate } from "./path-template.ts";

/** What of a request goes into the HTTP body. */
export type RouteBody =
  | { readonly kind: "none" }
  /** All fields that the path does not bind. */
  | { readonly kind: "all" }
  | { readonly kind: "field"; readonly field: DescField };

/** The fields by which a stream of numbered events is sent and resumed, from the method's `event_stream` option. */
export interface EventFields {
  /** The request's field with the last number seen. */
  readonly cursor: DescField;
  /** The response's field with the event; absent in a keepalive. */
  readonly event: DescField & { readonly fieldKind: "message" };
  /** The event's field with its number. */
  readonly seq: DescField;
  /** The event's oneof whose case names its type. */
  readonly type: DescOneof;
}

/** A way to call a method by plain HTTP, as its `google.api.http` option declares. */
export interface Route {
  readonly method: DescMethodUnary | DescMethodServerStreaming;
  /** For example `GET`. */
  readonly httpMethod: string;
  readonly template: PathTemplate;
  readonly body: RouteBody;
  /** The response's field that is the HTTP body; `undefined` for the whole response. */
  readonly responseField: DescField | undefined;
  /** For streams of numbered events. */
  readonly events: EventFields | undefined;
}

/**
 * Reads the routes of services from their options; a method with
 * `additional_bindings` has several. Those with more literal text before a
 * variable come first.
 *
 * @throws TypeError if an option names a field that is not there or cannot be
 *   bound, or two routes take the same requests
 */
export function routesOf(services: readonly DescService[]): readonly Route[] {
  const routes = services.flatMap((service) => service.methods).flatMap(routesOfMethod);
  const seen = new Map<string, Route>();
  for (const route of routes) {
    const shape = `${route.httpMethod} ${precedence(route)}`;
    const other = seen.get(shape);
    if (other !== undefined) {
      throw new TypeError(`${nameOf(route.method)} and ${nameOf(other.method)} have the same route`);
    }
    seen.set(shape, route);
  }
  return routes.sort((a, b) => (precedence(a) < precedence(b) ? -1 : 1));
}

/** Sorts a literal before `*` before `**` in each place, and tells whether two templates take the same paths. */
function precedence({ template }: Route): string {
  const segments = template.segments.map((segment) => {
    switch (segment.kind) {
      case "literal":
        return `0${segment.text}`;
      case "one":
        return "1";
      case "rest":
        return "2";
    }
  });
  return [...segments, template.verb === "" ? "~" : `:${template.verb}`].join("/");
}

function routesOfMethod(method: DescMethod): Route[] {
  if (!hasOption(method, http)) return [];
  if (!isUnary(method) && !isServerStreaming(method)) {
    throw new TypeError(`${nameOf(method)} has a route and takes a stream`);
  }
  const rule = getOption(method, http);
  return [rule, ...rule.additionalBindings].map((binding) => toRoute(method, binding));
}

function toRoute(method: DescMethodUnary | DescMethodServerStreaming, rule: HttpRule): Route {
  const { httpMethod, path } = patternOf(method, rule);
  const template = parsePathTemplate(path);
  for (const { fieldPath } of template.variables) {
    const field = fieldAt(method.input, fieldPath);
    if (field?.fieldKind !== "scalar" && field?.fieldKind !== "enum") {
      throw new TypeError(`${nameOf(method)} binds ${fieldPath} in its path, which is no single plain field`);
    }
  }
  const body = bodyOf(method, rule);
  if (body.kind !== "none" && (httpMethod === "GET" || httpMethod === "HEAD")) {
    throw new TypeError(`${nameOf(method)} takes a body with ${httpMethod}`);
  }
  return {
    method,
    httpMethod,
    template,
    body,
    responseField: rule.responseBody === "" ? undefined : requiredField(method, method.output, rule.responseBody),
    events: eventFieldsOf(method),
  };
}

function patternOf(method: DescMethod, { pattern }: HttpRule): { httpMethod: string; path: string } {
  switch (pattern.case) {
    case undefined:
      throw new TypeError(`${nameOf(method)} has a route without a path`);
    case "custom":
      return { httpMethod: pattern.value.kind, path: pattern.value.path };
    default:
      return { httpMethod: pattern.case.toUpperCase(), path: pattern.value };
  }
}

function bodyOf(method: DescMethod, { body }: HttpRule): RouteBody {
  if (body === "") return { kind: "none" };
  if (body === "*") return { kind: "all" };
  return { kind: "field", field: requiredField(method, method.input, body) };
}

function eventFieldsOf(method: DescMethod): EventFields | undefined {
  if (!hasOption(method, event_stream)) return undefined;
  const names = getOption(method, event_stream);
  const event = requiredField(method, method.output, names.eventField);
  if (event.fieldKind !== "message") throw new TypeError(`${nameOf(method)}: ${event.name} is no message`);
  const type = event.message.oneofs.find((oneof) => oneof.name === names.typeOneof);
  if (type === undefined) throw new TypeError(`${nameOf(method)}: ${event.message.typeName} has no ${names.typeOneof}`);
  return {
    cursor: requiredField(method, method.input, names.cursorField),
    event,
    seq: requiredField(method, event.message, names.seqField),
    type,
  };
}

function requiredField(method: DescMethod, message: DescMessage, name: string): DescField {
  const field = message.fields.find((candidate) => candidate.name === name);
  if (field === undefined) throw new TypeError(`${nameOf(method)}: ${message.typeName} has no field ${name}`);
  return field;
}

/** The field of a message at a path of proto names, through single messages. */
export function fieldAt(message: DescMessage, path: string): DescField | undefined {
  const [name, ...rest] = path.split(".");
  const field = message.fields.find((candidate) => candidate.name === name);
  if (rest.length === 0) return field;
  return field?.fieldKind === "message" ? fieldAt(field.message, rest.join(".")) : undefined;
}

function nameOf(method: DescMethod): string {
  return `${method.parent.typeName}.${method.name}`;
}
