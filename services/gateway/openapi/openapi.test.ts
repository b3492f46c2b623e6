import { readFile } from "node:fs/promises";
import { hasOption } from "@bufbuild/protobuf";
import { http } from "@cadre/gen/google/api/annotations_pb";
import { Validator } from "@seriousme/openapi-schema-validator";
import { beforeAll, expect, test } from "vitest";
import { type Contract, loadContract } from "../contract/load-contract.ts";
import { readComments } from "./comments.ts";
import type { JsonSchema } from "./json-schema.ts";
import { createOpenapi, type OpenapiDocument, openapiDocument } from "./openapi.ts";

let contract: Contract;
let document: OpenapiDocument;

beforeAll(async () => {
  contract = await loadContract();
  const set = await readFile(new URL("../../../gen/descriptor-set.binpb", import.meta.url));
  document = openapiDocument({ services: contract.publicServices, version: "1.2.3" }, readComments(set));
});

test("the document is valid OpenAPI 3.1", async () => {
  const result = await new Validator().validate(structuredClone(document));
  expect(result.errors).toBeUndefined();
  expect(result.valid).toBe(true);
});

test("every public method with a route is in it, once", () => {
  const declared = contract.publicServices
    .flatMap((service) => service.methods)
    .filter((method) => hasOption(method, http))
    .map((method) => `${method.parent.name}_${method.name}`);
  const described = Object.values(document.paths)
    .flatMap((path) => Object.values(path))
    .map((operation) => operation.operationId)
    .filter((id) => !id.startsWith("Gateway_"));
  expect(described.sort()).toEqual(declared.sort());
});

test("every reference leads somewhere, and nothing in it is undocumented", () => {
  const text = JSON.stringify(document);
  const names = new Set([...text.matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)].map((match) => match[1]));
  for (const name of names) expect(document.components.schemas).toHaveProperty([String(name)]);
  const undocumented = Object.entries(document.components.schemas)
    .filter(([name]) => name !== "Error")
    .flatMap(([name, schema]) => [[name, schema] as const, ...propertiesOf(name, schema)])
    .filter(([, schema]) => (schema.description ?? "") === "")
    .map(([name]) => name);
  expect(undocumented).toEqual([]);
});

function propertiesOf(name: string, schema: JsonSchema): (readonly [string, JsonSchema])[] {
  return Object.entries(schema.properties ?? {}).map(([field, property]) => [`${name}.${field}`, property]);
}

test("rules of the contract are in the schemas", () => {
  const { AgentDefinition, AgentLimits, OnBusy } = document.components.schemas;
  expect(AgentDefinition?.required).toEqual(["name", "model"]);
  expect(AgentDefinition?.properties?.name).toMatchObject({ type: "string", pattern: "^[a-z][a-z0-9-]{0,62}$" });
  expect(AgentDefinition?.properties?.tools).toMatchObject({ type: "array", maxItems: 128, uniqueItems: true });
  expect(AgentLimits?.properties?.max_tool_rounds).toMatchObject({ type: "integer", minimum: 0, maximum: 200 });
  expect(AgentLimits?.properties?.max_tokens).toMatchObject({ type: "string", format: "uint64" });
  expect(AgentLimits?.properties?.max_duration?.description).toContain("At most 86400 seconds.");
  expect(OnBusy?.enum).toContain("ON_BUSY_ENQUEUE");
  expect(OnBusy?.description).toContain("at most 16 may wait");
});

test("path, query, body and header parameters are told apart", () => {
  const send = document.paths["/v1/sessions/{session_id}/turns"]?.post;
  expect(send).toMatchObject({ operationId: "SessionService_SendTurn", tags: ["SessionService"] });
  const body = (send as unknown as Body).requestBody.content["application/json"].schema;
  expect(body.required).toEqual(["text"]);
  expect(Object.keys(body.properties)).toEqual(["text", "on_busy", "answer_schema"]);
  expect(body.additionalProperties).toBe(false);
  expect(send?.parameters).toContainEqual({ $ref: "#/components/parameters/IdempotencyKey" });
  const events = document.paths["/v1/sessions/{session_id}/events"]?.get;
  const parameters = events?.parameters as readonly { readonly name?: string; readonly in?: string }[];
  expect(parameters.map((parameter) => `${parameter.in} ${parameter.name}`)).toEqual([
    "path session_id",
    "query after_seq",
    "undefined undefined",
  ]);
  expect(document.paths["/metrics"]?.get).toMatchObject({ responses: { 200: { content: { "text/plain": {} } } } });
});

test("the served text is made once", async () => {
  const openapi = createOpenapi({ services: contract.publicServices, version: "1.2.3" });
  expect(await openapi()).toBe(await openapi());
  expect(JSON.parse(await openapi())).toEqual(JSON.parse(JSON.stringify(document)));
});

interface Body {
  readonly requestBody: {
    readonly content: {
      readonly "application/json": {
        readonly schema: {
          readonly required: readonly string[];
          readonly properties: Readonly<Record<string, unknown>>;
          readonly additionalProperties: boolean;
        };
      };
    };
  };
}
