import {
  create,
  type DescField,
  type DescMessage,
  equals,
  fromJson,
  type JsonObject,
  type JsonValue,
  type Message,
  ScalarType,
  toJson,
} from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { IssueKeyRequestSchema, Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { ListRunsRequestSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import {
  CreateSessionRequestSchema,
  ListTurnsRequestSchema,
  OnBusy,
  SendTurnRequestSchema,
  StreamEventsRequestSchema,
} from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { RegisterToolRequestSchema, SideEffects } from "@cadre/gen/cadre/tools/v1/tool_pb";
import fc from "fast-check";
import { expect, test } from "vitest";
import { AppError } from "../../runtime/errors/app-error.ts";
import { loadContract } from "../contract/load-contract.ts";
import { bindRequest, type RequestParts } from "./bind-request.ts";
import { expandPath, matchPath, parsePathTemplate } from "./path-template.ts";
import { type Route, type RouteBody, routesOf } from "./route.ts";

const routes = routesOf((await loadContract()).publicServices);

/** A route that the contract does not have. */
function routeTo(input: DescMessage, body: RouteBody = { kind: "none" }, path = "/v1/test"): Route {
  const method = { input } as unknown as Route["method"];
  const template = parsePathTemplate(path);
  return { method, httpMethod: "GET", template, body, responseField: undefined, events: undefined };
}

function bind(route: Route, parts: Partial<RequestParts>): Message {
  return bindRequest(route, { variables: new Map(), query: "", body: undefined, ...parts });
}

function failure(act: () => unknown): AppError {
  try {
    act();
  } catch (thrown) {
    if (thrown instanceof AppError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}

test.each(routes.map((route) => [`${route.httpMethod} ${route.template.source}`, route] as const))(
  "%s: what a message becomes as a request is the message again",
  (_, route) => {
    fc.assert(
      fc.property(arbitraryMessage(route.method.input, pathFields(route), route.body.kind === "all"), (message) => {
        const { path, query, body } = toRequest(route, message);
        const variables = matchPath(route.template, path);
        if (variables === undefined) throw new Error(`${path} does not match`);
        const bound = bind(route, { variables, query, body });
        expect(equals(route.method.input, bound, message)).toBe(true);
      }),
      { numRuns: 60 },
    );
  },
);

test.each<[string, DescMessage]>([
  ["nested and repeated fields, enums and durations", RegisterToolRequestSchema],
  ["repeated texts", IssueKeyRequestSchema],
  ["booleans and times", PrincipalSchema],
])("a query says %s", (_, input) => {
  const route = routeTo(input);
  fc.assert(
    fc.property(arbitraryMessage(input, new Set(), false), (message) => {
      expect(equals(input, bind(route, toRequest(route, message)), message)).toBe(true);
    }),
  );
});

test("a query in words", () => {
  const query =
    "definition.name=a&definition.description=b+c%2B&definition.side_effects=SIDE_EFFECTS_NONE&definition.timeout=1.5s";
  expect(bind(routeTo(RegisterToolRequestSchema), { query })).toEqual(
    create(RegisterToolRequestSchema, {
      definition: {
        name: "a",
        description: "b c+",
        sideEffects: SideEffects.NONE,
        timeout: { seconds: 1n, nanos: 500_000_000 },
      },
    }),
  );
  expect(bind(routeTo(IssueKeyRequestSchema), { query: "scopes=a&scopes=b&role=ROLE_ADMIN&" })).toEqual(
    create(IssueKeyRequestSchema, { scopes: ["a", "b"], role: Role.ADMIN }),
  );
  expect(bind(routeTo(ListTurnsRequestSchema), { query: "pageSize=5" })).toMatchObject({ pageSize: 5 });
  const labels = "filter.labels[team]=billing&filter.labels%5Ba.b/c%5D=&filter.labels[x[y]]=z";
  expect(bind(routeTo(ListRunsRequestSchema), { query: labels })).toEqual(
    create(ListRunsRequestSchema, { filter: { labels: { team: "billing", "a.b/c": "", "x[y]": "z" } } }),
  );
});

test("a body may be one field", () => {
  const definition = RegisterToolRequestSchema.field.definition;
  const route = routeTo(RegisterToolRequestSchema, { kind: "field", field: definition });
  expect(bind(route, { body: { name: "a" } })).toMatchObject({ definition: { name: "a" } });
  expect(failure(() => bind(route, { body: { nam: "a" } })).violations[0]?.field).toBe("definition.nam");
  expect(failure(() => bind(route, { body: {}, query: "definition.name=a" })).message).toContain("given by the body");
});

const turn = routeTo(SendTurnRequestSchema, { kind: "all" }, "/v1/sessions/{session_id}/turns");
const session = new Map([["session_id", "ses_1"]]);

test.each<[string, Route, Partial<RequestParts>, string, string]>([
  ["an unknown field", turn, { body: { txt: "x" } }, "txt", "no such field"],
  ["a wrong type", turn, { body: { text: 17 } }, "text", "is no string"],
  ["an unknown enum value", turn, { body: { on_busy: "ON_BUSY_GEHEIM" } }, "on_busy", "is no OnBusy"],
  ["a body that is no object", turn, { body: [1] }, "", "must be an object"],
  ["null for a body", turn, { body: null }, "", "must be an object"],
  ["a field that the path gives", turn, { body: { session_id: "x" }, variables: session }, "session_id", "by the path"],
  ["a query beside a whole body", turn, { body: {}, query: "text=x" }, "text", "no such query parameter"],
  ["two names of a field", turn, { body: { on_busy: 1, onBusy: 1 } }, "on_busy", "under two names"],
  ["an unknown parameter", routeTo(ListTurnsRequestSchema), { query: "limit=5" }, "limit", "no such query parameter"],
  ["a number that is none", routeTo(ListTurnsRequestSchema), { query: "page_size=many" }, "page_size", "is no uint32"],
  ["a negative one", routeTo(ListTurnsRequestSchema), { query: "page_size=-1" }, "page_size", "is no uint32"],
  [
    "one out of range",
    routeTo(StreamEventsRequestSchema),
    { query: "after_seq=18446744073709551616" },
    "after_seq",
    "is no uint64",
  ],
  ["an exponent", routeTo(StreamEventsRequestSchema), { query: "after_seq=1e3" }, "after_seq", "is no uint64"],
  [
    "a single value twice",
    routeTo(ListTurnsRequestSchema),
    { query: "page_size=1&page_size=2" },
    "page_size",
    "more than once",
  ],
  [
    "a value under two names",
    routeTo(ListTurnsRequestSchema),
    { query: "page_size=1&pageSize=2" },
    "page_size",
    "two names",
  ],
  ["a boolean that is none", routeTo(PrincipalSchema), { query: "operator=1" }, "operator", "true or false"],
  ["a map without a key", routeTo(ListRunsRequestSchema), { query: "filter.labels=a" }, "filter.labels", "[key]=value"],
  [
    "a key that comes twice",
    routeTo(ListRunsRequestSchema),
    { query: "filter.labels[a]=1&filter.labels[a]=2" },
    "filter.labels[a]",
    "more than once",
  ],
  ["a key of what is no map", routeTo(ListRunsRequestSchema), { query: "filter.name[a]=1" }, "filter.name", "no keys"],
  [
    "a Struct in the query",
    routeTo(SendTurnRequestSchema),
    { query: "answer_schema=a" },
    "answer_schema",
    "cannot be given",
  ],
  ["broken escapes", routeTo(ListTurnsRequestSchema), { query: "page_token=%ff" }, "", "percent-encoded"],
  [
    "a nested field",
    routeTo(RegisterToolRequestSchema, { kind: "all" }),
    { body: { definition: { timeout: "x" } } },
    "definition.timeout",
    "is no Duration",
  ],
  [
    "an item of a list",
    routeTo(IssueKeyRequestSchema, { kind: "all" }),
    { body: { scopes: ["a", 1] } },
    "scopes",
    "is no list of string",
  ],
  [
    "a value of a map",
    routeTo(CreateSessionRequestSchema, { kind: "all" }),
    { body: { labels: { a: 1 } } },
    "labels",
    "is no object of string",
  ],
])("%s is refused, the field named and no value shown", (_, route, parts, field, message) => {
  const error = failure(() => bind(route, parts));
  expect(error.reason).toBe("MALFORMED_MESSAGE");
  expect(error.violations.map((violation) => violation.field)).toEqual(field === "" ? [] : [field]);
  expect(error.message).toContain(message);
  expect(error.message).not.toMatch(/GEHEIM|many|17|18446744073709551616/);
});

test("keys that mean something to JavaScript are data", () => {
  const body = JSON.parse('{"text":"x","answer_schema":{"__proto__":{"polluted":true},"constructor":1}}') as JsonValue;
  const bound = bind(turn, { body, variables: session }) as unknown as { answerSchema: JsonObject };
  expect(Object.keys(bound.answerSchema)).toEqual(["__proto__", "constructor"]);
  expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  expect(failure(() => bind(turn, { body: JSON.parse('{"__proto__":{}}') as JsonValue })).violations[0]?.field).toBe(
    "__proto__",
  );
});

test("an empty body is the empty message", () => {
  expect(bind(turn, { variables: session })).toEqual(create(SendTurnRequestSchema, { sessionId: "ses_1" }));
  expect(bind(turn, { variables: session, body: { on_busy: "ON_BUSY_ENQUEUE" } })).toMatchObject({
    onBusy: OnBusy.ENQUEUE,
  });
});

interface PlainRequest {
  readonly path: string;
  readonly query: string;
  readonly body: JsonValue | undefined;
}

/** The way back: how a client says a message by a route. */
function toRequest(route: Route, message: Message): PlainRequest {
  const json = toJson(route.method.input, message, { useProtoFieldName: true }) as JsonObject;
  // A path says also what JSON leaves out: a number that is 0.
  const whole = toJson(route.method.input, message, {
    useProtoFieldName: true,
    alwaysEmitImplicit: true,
  }) as JsonObject;
  const variables = new Map<string, string>();
  for (const { fieldPath } of route.template.variables) {
    variables.set(fieldPath, String(whole[fieldPath]));
    delete json[fieldPath];
  }
  const path = expandPath(route.template, variables);
  if (route.body.kind === "all") return { path, query: "", body: json };
  return { path, query: [...toParameters(route.method.input, json, "")].join("&"), body: undefined };
}

function* toParameters(desc: DescMessage, json: JsonObject, prefix: string): Generator<string> {
  for (const [name, value] of Object.entries(json)) {
    const field = desc.fields.find((candidate) => candidate.name === name);
    const path = `${prefix}${name}`;
    if (field?.fieldKind === "map") {
      for (const [key, item] of Object.entries(value as JsonObject)) yield toParameter(`${path}[${key}]`, item);
    } else if (field?.fieldKind === "message" && typeof value === "object") {
      yield* toParameters(field.message, value as JsonObject, `${path}.`);
    } else for (const item of Array.isArray(value) ? value : [value]) yield toParameter(path, item);
  }
}

function toParameter(name: string, value: JsonValue | undefined): string {
  return `${encodeURIComponent(name)}=${encodeURIComponent(String(value))}`;
}

function pathFields(route: Route): ReadonlySet<string> {
  return new Set(route.template.variables.map((variable) => variable.fieldPath));
}

/** Any message of a type; `inPath` are the fields that a path must be able to say. */
function arbitraryMessage(desc: DescMessage, inPath: ReadonlySet<string>, structured = true): fc.Arbitrary<Message> {
  const fields = desc.fields.filter((field) => field.oneof === undefined && (structured || isPlain(field)));
  const model = Object.fromEntries(
    fields.map((field) => [field.localName, arbitraryField(field, inPath.has(field.name), structured)]),
  );
  return fc.record(model).map((init) => create(desc, init as never));
}

function isPlain(field: DescField): boolean {
  const struct =
    (field.fieldKind === "message" || field.fieldKind === "list") &&
    /^google\.protobuf\.(Struct|Value)$/.test(field.message?.typeName ?? "");
  return !(field.fieldKind === "map" && field.mapKind === "message") && struct !== true;
}

const text = fc.string({ unit: "grapheme", maxLength: 12 });

function arbitraryField(field: DescField, inPath: boolean, structured: boolean): fc.Arbitrary<unknown> {
  switch (field.fieldKind) {
    case "scalar":
      return inPath && field.scalar === ScalarType.STRING
        ? text.filter((value) => !["", ".", ".."].includes(value))
        : arbitraryScalar(field.scalar);
    case "enum":
      return fc.constantFrom(...field.enum.values.map((value) => value.number));
    case "message":
      return fc.option(arbitraryNested(field.message, structured), { nil: undefined });
    case "list":
      return fc.array(
        field.listKind === "scalar"
          ? arbitraryScalar(field.scalar)
          : field.listKind === "enum"
            ? fc.constantFrom(...field.enum.values.map((value) => value.number))
            : arbitraryNested(field.message, structured),
        { maxLength: 3 },
      );
    case "map":
      return fc.dictionary(
        text,
        field.mapKind === "message" ? arbitraryNested(field.message, structured) : fc.constantFrom("", "größer"),
        { maxKeys: 3 },
      );
  }
}

function arbitraryNested(desc: DescMessage, structured: boolean): fc.Arbitrary<unknown> {
  switch (desc.typeName) {
    case "google.protobuf.Struct":
      return fc
        .dictionary(text, fc.jsonValue({ maxDepth: 2 }), { maxKeys: 3 })
        .map((value) => JSON.parse(JSON.stringify(value)));
    case "google.protobuf.Value":
      return fc
        .jsonValue({ maxDepth: 2 })
        .map((value) => fromJson(ValueSchema, JSON.parse(JSON.stringify(value)) as JsonValue));
    case "google.protobuf.Duration":
      return fc.record({ seconds: fc.bigInt(0n, 100_000n), nanos: fc.integer({ min: 0, max: 999_999_999 }) });
    case "google.protobuf.Timestamp":
      return fc.record({ seconds: fc.bigInt(0n, 4_000_000_000n), nanos: fc.integer({ min: 0, max: 999_999_999 }) });
    default:
      // A nested message without any field has no parameters to say it by.
      return arbitraryMessage(desc, new Set(), structured).filter(
        (value) => structured || Object.keys(toJson(desc, value) as JsonObject).length > 0,
      );
  }
}

function arbitraryScalar(scalar: ScalarType): fc.Arbitrary<unknown> {
  switch (scalar) {
    case ScalarType.STRING:
      return text;
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.BYTES:
      return fc.uint8Array({ maxLength: 64 });
    case ScalarType.UINT32:
      return fc.nat(4_294_967_295);
    case ScalarType.INT32:
      return fc.integer();
    case ScalarType.DOUBLE:
      return fc.double({ noNaN: true, noDefaultInfinity: true });
    case ScalarType.UINT64:
      return fc.bigInt(0n, 2n ** 64n - 1n);
    default:
      throw new TypeError(`no values for ${ScalarType[scalar]}`);
  }
}
