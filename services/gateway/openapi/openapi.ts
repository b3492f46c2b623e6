import { readFile } from "node:fs/promises";
import {
  type DescField,
  type DescMessage,
  type DescMethod,
  type DescService,
  getOption,
  hasOption,
} from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { authz, Relation } from "@cadre/gen/cadre/options/v1/options_pb";
import { fieldAt, type Route, routesOf } from "../rest/route.ts";
import { type Comments, readComments } from "./comments.ts";
import type { JsonSchema } from "./json-schema.ts";
import { createSchemaWriter, type SchemaWriter } from "./schema-writer.ts";

export interface OpenapiOptions {
  readonly services: readonly DescService[];
  readonly version: string;
}

/** A document of OpenAPI 3.1, as far as its form is known here. */
export interface OpenapiDocument {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, JsonSchema>>; readonly [key: string]: unknown };
  readonly [key: string]: unknown;
}

/** One way to call a method. */
export interface Operation {
  readonly operationId: string;
  readonly [key: string]: unknown;
}

/**
 * Gives the OpenAPI document as JSON. Made when it is first asked for, and
 * once: it depends on nothing but the build.
 */
export function createOpenapi(options: OpenapiOptions): () => Promise<string> {
  let document: Promise<string> | undefined;
  return () => {
    document ??= readFile(new URL("../../../gen/descriptor-set.binpb", import.meta.url)).then((set) =>
      JSON.stringify(openapiDocument(options, readComments(set))),
    );
    return document;
  };
}

/** Describes the REST routes of services by OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0). */
export function openapiDocument({ services, version }: OpenapiOptions, comments: Comments): OpenapiDocument {
  const writer = createSchemaWriter(comments);
  const paths: Record<string, Record<string, Operation>> = { ...ownPaths };
  const counts = new Map<string, number>();
  for (const route of routesOf(services)) {
    const path = pathOf(route);
    const count = (counts.get(route.method.toString()) ?? 0) + 1;
    counts.set(route.method.toString(), count);
    paths[path] = {
      ...paths[path],
      [route.httpMethod.toLowerCase()]: toOperation(route, count, writer, comments),
    };
  }
  const routed = services.filter((service) => service.methods.some((method) => counts.has(method.toString())));
  return {
    openapi: "3.1.0",
    info: {
      title: "Cadre",
      version,
      description: introduction,
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/" }],
    security: [{ bearer: [] }],
    tags: [
      ...routed.map((service) => ({ name: service.name, description: comments.get(service.typeName) ?? "" })),
      { name: "Gateway", description: "What anyone may ask." },
    ],
    paths: Object.fromEntries(Object.entries(paths).sort(([a], [b]) => (a < b ? -1 : 1))),
    components: {
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer", description: "An API key (`cdr_…`) or a JWT." },
      },
      parameters: sharedParameters,
      headers: sharedHeaders,
      responses: {
        Error: {
          description: "The call failed; the reason says why.",
          headers: { "X-Request-Id": { $ref: "#/components/headers/RequestId" } },
          content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
        },
      },
      schemas: { ...writer.components(), Error: errorSchema },
    },
  };
}

const introduction = [
  "Agents, sessions and tools over plain HTTP. The same methods answer by Connect, gRPC and gRPC-Web on this port.",
  "Bodies are Protobuf JSON with the contract's field names; 64-bit numbers are texts. Unknown fields are refused.",
  "Event streams are `text/event-stream`; read them with `fetch` and resume with `Last-Event-ID`.",
].join("\n\n");

const sharedParameters = {
  IdempotencyKey: {
    name: "Idempotency-Key",
    in: "header",
    description: "The same key again, with the same request, gives the first answer and does nothing twice.",
    schema: { type: "string", minLength: 1, maxLength: 255 },
  },
  LastEventId: {
    name: "Last-Event-ID",
    in: "header",
    description: "The number of the last event seen. Counts for more than the query.",
    schema: { type: "string", pattern: "^[0-9]{1,20}$" },
  },
};

const sharedHeaders = {
  RequestId: { description: "The request's id, to name in questions to the operator.", schema: { type: "string" } },
  Version: { description: "The server's version.", schema: { type: "string" } },
};

const errorSchema: JsonSchema = {
  type: "object",
  description: "Why a call failed.",
  required: ["error"],
  properties: {
    error: {
      type: "object",
      required: ["code", "status", "reason", "message", "details", "request_id"],
      properties: {
        code: { type: "integer", description: "The HTTP status.", examples: [404] },
        status: { type: "string", description: "The RPC code's name.", examples: ["not_found"] },
        reason: {
          type: "string",
          description: "Why, for programs; the values of `cadre.errors.v1.Reason`.",
          examples: ["SESSION_NOT_FOUND"],
        },
        message: { type: "string", description: "Why, for people." },
        details: {
          type: "array",
          description: "`google.rpc` messages with their `@type`: fields that are wrong, limits, when to try again.",
          items: { type: "object", additionalProperties: true },
        },
        request_id: { type: "string", description: "The request's id." },
      },
    },
  },
};

/** The pages that the gateway answers without a method of the contract. */
const ownPaths: Readonly<Record<string, Record<string, Operation>>> = {
  "/": page("Gateway_GetRoot", "Names the product, its version and this document.", { 200: "The names." }),
  "/health": page("Gateway_GetServing", "Says whether the installation serves, and nothing else.", {
    200: "It serves.",
    503: "It does not serve.",
  }),
  "/openapi.json": page("Gateway_GetOpenapi", "Returns this document.", { 200: "The document." }),
};

function page(
  operationId: string,
  summary: string,
  answers: Readonly<Record<number, string>>,
): Record<string, Operation> {
  const content = { "application/json": { schema: { type: "object", additionalProperties: true } } };
  const responses = Object.fromEntries(
    Object.entries(answers).map(([status, description]) => [status, { description, content }]),
  );
  return { get: { operationId, summary, tags: ["Gateway"], security: [], responses } };
}

/** OpenAPI's paths have plain variables only. */
function pathOf({ template }: Route): string {
  const parts = template.segments.map((segment) => (segment.kind === "literal" ? segment.text : "*"));
  for (const { fieldPath, from, to } of [...template.variables].reverse()) {
    parts.splice(from, Math.min(to, parts.length) - from, `{${fieldPath}}`);
  }
  return `/${parts.join("/")}${template.verb === "" ? "" : `:${template.verb}`}`;
}

function toOperation(route: Route, count: number, writer: SchemaWriter, comments: Comments): Operation {
  const { method } = route;
  const text = comments.get(`${method.parent.typeName}.${method.name}`) ?? "";
  const operation: Record<string, unknown> = {
    operationId: `${method.parent.name}_${method.name}${count === 1 ? "" : count}`,
    summary: text.split(/(?<=\.)\s/, 1)[0] ?? "",
    description: [text, accessText(method)].filter((part) => part !== "").join("\n\n"),
    tags: [method.parent.name],
    parameters: parametersOf(route, writer),
    responses: {
      200: { description: "The answer.", headers: answerHeaders, content: answerContent(route, writer) },
      default: { $ref: "#/components/responses/Error" },
    },
  };
  if (getOption(method, authz).relation === Relation.ANYONE) operation.security = [];
  const body = requestBody(route, writer);
  if (body !== undefined) operation.requestBody = body;
  return operation as unknown as Operation;
}

const answerHeaders = {
  "X-Request-Id": { $ref: "#/components/headers/RequestId" },
  "Cadre-Version": { $ref: "#/components/headers/Version" },
};

function accessText(method: DescMethod): string {
  if (!hasOption(method, authz)) return "";
  const { relation, scope } = getOption(method, authz);
  const role = Relation[relation]?.toLowerCase();
  return `Needs the role \`${role}\`${scope === "" ? "" : ` and the scope \`${scope}\``}.`;
}

function parametersOf(route: Route, writer: SchemaWriter): unknown[] {
  const { method, template } = route;
  const bound = new Set(template.variables.map((variable) => variable.fieldPath));
  const parameters: unknown[] = [];
  for (const fieldPath of bound) {
    const field = fieldAt(method.input, fieldPath);
    if (field !== undefined) parameters.push({ ...toParameter(fieldPath, field, writer), in: "path", required: true });
  }
  if (route.body.kind !== "all") {
    const skipped = route.body.kind === "field" ? route.body.field.name : undefined;
    for (const [fieldPath, field] of queryFields(method.input, "")) {
      if (bound.has(fieldPath) || fieldPath.split(".")[0] === skipped) continue;
      const parameter = { ...toParameter(fieldPath, field, writer), in: "query" };
      parameters.push(writer.isRequired(field) ? { ...parameter, required: true } : parameter);
    }
  }
  if (route.events !== undefined) parameters.push({ $ref: "#/components/parameters/LastEventId" });
  if (method.idempotency !== MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS) {
    parameters.push({ $ref: "#/components/parameters/IdempotencyKey" });
  }
  return parameters;
}

function toParameter(name: string, field: DescField, writer: SchemaWriter): Record<string, unknown> {
  const { description, ...schema } = writer.field(field);
  return {
    name,
    ...(description === undefined ? {} : { description }),
    // `labels[team]=billing`, a parameter for each key.
    ...(field.fieldKind === "map" ? { style: "deepObject", explode: true } : {}),
    schema,
  };
}

/** The fields that a query can give, nested ones by their paths. */
function* queryFields(message: DescMessage, prefix: string): Generator<readonly [string, DescField]> {
  for (const field of message.fields) {
    const isPlain = field.fieldKind === "scalar" || field.fieldKind === "enum";
    const isList = field.fieldKind === "list" && field.listKind !== "message";
    const isMap = field.fieldKind === "map" && field.mapKind !== "message";
    if (isPlain || isList || isMap) yield [`${prefix}${field.name}`, field];
    else if (field.fieldKind === "message") {
      const { typeName } = field.message;
      if (/^google\.protobuf\.(Timestamp|Duration|FieldMask|\w+Value)$/.test(typeName)) {
        yield [`${prefix}${field.name}`, field];
      } else if (!typeName.startsWith("google.protobuf.") && prefix.split(".").length < 4) {
        yield* queryFields(field.message, `${prefix}${field.name}.`);
      }
    }
  }
}

function requestBody(route: Route, writer: SchemaWriter): unknown {
  const { body, method, template } = route;
  switch (body.kind) {
    case "none":
      return undefined;
    case "field":
      return { content: { "application/json": { schema: writer.field(body.field) } } };
    case "all": {
      const schema = writer.body(method.input, new Set(template.variables.map((variable) => variable.fieldPath)));
      return { required: (schema.required ?? []).length > 0, content: { "application/json": { schema } } };
    }
  }
}

function answerContent(route: Route, writer: SchemaWriter): unknown {
  const { method, responseField, events } = route;
  if (method.methodKind === "unary") {
    if (responseField === undefined) return { "application/json": { schema: writer.reference(method.output) } };
    const schema = writer.field(responseField);
    return { [schema.type === "string" ? "text/plain" : "application/json"]: { schema } };
  }
  const message = writer.reference(events?.event.message ?? method.output);
  const eventStream = {
    schema: { type: "string", description: "Events whose `data` is as `x-event-data` says." },
    "x-event-data": message,
  };
  const lines = {
    schema: { type: "string", description: "Lines of JSON as `x-line` says." },
    "x-line": writer.reference(method.output),
  };
  return { "text/event-stream": eventStream, "application/x-ndjson": lines };
}
