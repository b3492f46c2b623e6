import { randomUUID } from "node:crypto";
import { create, createFileRegistry, type DescMessage, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { FileDescriptorProtoSchema, file_google_protobuf_timestamp } from "@bufbuild/protobuf/wkt";
import { AuditService } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { RunChangedSchema } from "@cadre/gen/cadre/events/v1/run_pb";
import { RegistryService } from "@cadre/gen/cadre/registry/v1/registry_pb";
import { createCadre } from "@cadre/sdk";
import {
  ProtobufDeserializer,
  ProtobufSerializer,
  type SchemaInfo,
  SchemaRegistryClient,
  SerdeType,
} from "@confluentinc/schemaregistry";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { SchemaRegistry, SchemaType } from "@kafkajs/confluent-schema-registry";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { callRaw } from "../support/connect-json.ts";

// The registry through the public door: by plain HTTP, and by both clients that
// npm has for the Confluent Schema Registry, unchanged.

let server: RunningCadre;
let base = "";
beforeAll(async () => {
  server = await startCadre();
  base = `${server.url}/registry`;
});
afterAll(() => server.dispose());

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

async function call(method: string, path: string, body?: unknown, key = server.adminKey): Promise<Answer> {
  const response = await fetch(`${base}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${key}`,
      ...(body === undefined ? {} : { "content-type": "application/vnd.schemaregistry.v1+json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  expect(response.headers.get("content-type")).toBe("application/vnd.schemaregistry.v1+json");
  const text = await response.text();
  return { status: response.status, body: path.endsWith("/schema") && response.ok ? text : JSON.parse(text) };
}

/** Status and Confluent's code of a failure. */
async function codeOf(method: string, path: string, body?: unknown, key?: string): Promise<unknown> {
  const { status, body: answer } = await call(method, path, body, key);
  return [status, (answer as { error_code: number }).error_code];
}

const protobuf = (schema: string, references: readonly unknown[] = []) => ({
  schemaType: "PROTOBUF",
  schema,
  references,
});
const proto3 = (body: string, name = "shop.v1"): string => `syntax = "proto3"; package ${name}; ${body}`;
const order = proto3("message Order { string id = 1; int32 amount = 2; }");
const fresh = (): string => `s-${randomUUID()}`;

describe("the REST API", () => {
  test("a subject's life: registered, found, evolved, deleted, deleted for good", async () => {
    const subject = fresh();
    const first = await call("POST", `/subjects/${subject}/versions`, protobuf(order));
    expect(first).toEqual({ status: 200, body: { id: expect.any(Number) } });
    const { id } = first.body as { id: number };
    expect(await call("POST", `/subjects/${subject}/versions`, protobuf(order))).toEqual(first);
    const found = { subject, version: 1, id, schemaType: "PROTOBUF", schema: order };
    expect((await call("GET", `/subjects/${subject}/versions/latest`)).body).toEqual(found);
    expect((await call("POST", `/subjects/${subject}`, protobuf(`// other layout\n${order}`))).body).toEqual(found);
    expect((await call("GET", `/schemas/ids/${id}`)).body).toEqual({ schemaType: "PROTOBUF", schema: order });
    expect((await call("GET", `/schemas/ids/${id}/schema`)).body).toBe(order);
    expect((await call("GET", `/subjects/${subject}/versions/1/schema`)).body).toBe(order);

    const next = proto3("message Order { string id = 1; int32 amount = 2; string note = 3; }");
    await call("POST", `/subjects/${subject}/versions`, protobuf(next));
    expect((await call("GET", `/subjects/${subject}/versions`)).body).toEqual([1, 2]);
    expect((await call("GET", `/subjects/${subject}/versions?offset=1&limit=1`)).body).toEqual([2]);
    const other = fresh();
    expect((await call("POST", `/subjects/${other}/versions`, protobuf(order))).body).toEqual({ id });
    expect((await call("GET", `/schemas/ids/${id}/versions`)).body).toEqual(
      [
        { subject, version: 1 },
        { subject: other, version: 1 },
      ].sort((a, b) => (a.subject < b.subject ? -1 : 1)),
    );
    expect((await call("GET", `/schemas/ids/${id}/subjects`)).body).toEqual([subject, other].sort());

    expect(await codeOf("DELETE", `/subjects/${subject}?permanent=true`)).toEqual([404, 40405]);
    expect(await codeOf("DELETE", `/subjects/${subject}/versions/1?permanent=true`)).toEqual([404, 40407]);
    expect((await call("DELETE", `/subjects/${subject}/versions/1`)).body).toBe(1);
    expect(await codeOf("DELETE", `/subjects/${subject}/versions/1`)).toEqual([404, 40406]);
    expect(await codeOf("GET", `/subjects/${subject}/versions/1`)).toEqual([404, 40402]);
    expect((await call("GET", `/subjects/${subject}/versions/1?deleted=true`)).body).toEqual(found);
    expect((await call("DELETE", `/subjects/${subject}`)).body).toEqual([2]);
    expect(await codeOf("DELETE", `/subjects/${subject}`)).toEqual([404, 40404]);
    expect(await codeOf("GET", `/subjects/${subject}/versions`)).toEqual([404, 40401]);
    expect((await call("GET", `/subjects?subjectPrefix=${subject}`)).body).toEqual([]);
    expect((await call("GET", `/subjects?subjectPrefix=${subject}&deleted=true`)).body).toEqual([subject]);
    expect((await call("DELETE", `/subjects/${subject}?permanent=true`)).body).toEqual([1, 2]);
    expect((await call("GET", `/subjects?subjectPrefix=${subject}&deleted=true`)).body).toEqual([]);
    await call("DELETE", `/subjects/${other}`);
    expect((await call("GET", `/schemas/ids/${id}`)).status).toBe(200);
    await call("DELETE", `/subjects/${other}?permanent=true`);
    expect(await codeOf("GET", `/schemas/ids/${id}`)).toEqual([404, 40403]);
    expect((await call("POST", `/subjects/${subject}/versions`, protobuf(order))).body).toEqual({ id });
  });

  test("a breaking change is refused with message, field and rule, and checked the same beforehand", async () => {
    const subject = fresh();
    await call("POST", `/subjects/${subject}/versions`, protobuf(order));
    const breaking = protobuf(proto3("message Order { int64 id = 1; }"));
    const refused = await call("POST", `/subjects/${subject}/versions`, breaking);
    expect(refused.status).toBe(409);
    expect(refused.body).toEqual({
      error_code: 409,
      message: expect.stringMatching(
        /version 1: .*shop\.v1\.Order: field 1 \(id\): its type was string and is int64 \(FIELD_WIRE_COMPATIBLE_TYPE\); .*field 2 \(amount\): the field was removed without reserving its number 2/,
      ),
    });
    const audited = await callRaw(
      server.url,
      AuditService.method.listAuditEvents,
      { type: "schema.rejected" },
      server.adminKey,
    );
    expect(JSON.parse(audited.body)).toMatchObject({
      events: [{ reason: "SCHEMA_INCOMPATIBLE", actor: expect.stringMatching(/^key_/) }],
    });
    const checks = `/compatibility/subjects/${subject}/versions`;
    expect((await call("POST", checks, breaking)).body).toEqual({ is_compatible: false });
    const verbose = (await call("POST", `${checks}/latest?verbose=true`, breaking)).body as { messages: string[] };
    expect(verbose.messages).toHaveLength(2);
    expect((await call("POST", `${checks}/1`, protobuf(order))).body).toEqual({ is_compatible: true });
    expect(await codeOf("POST", `${checks}/7`, breaking)).toEqual([404, 40402]);
    expect((await call("POST", `/compatibility/subjects/${fresh()}/versions`, breaking)).body).toEqual({
      is_compatible: true,
    });

    expect((await call("PUT", `/config/${subject}`, { compatibility: "NONE" })).body).toEqual({
      compatibility: "NONE",
    });
    expect((await call("POST", `/subjects/${subject}/versions`, breaking)).status).toBe(200);
  });

  test("transitive levels look at every version, others at the latest", async () => {
    const subject = fresh();
    const versions = [
      "message M { string a = 1; string b = 2; }",
      "message M { string a = 1; reserved 2; }",
      "message M { string a = 1; int32 c = 2; }",
    ].map((body) => protobuf(proto3(body)));
    for (const version of versions.slice(0, 2)) {
      expect((await call("POST", `/subjects/${subject}/versions`, version)).status).toBe(200);
    }
    const messagesOf = async (level: string): Promise<string[]> => {
      await call("PUT", `/config/${subject}`, { compatibility: level });
      const path = `/compatibility/subjects/${subject}/versions?verbose=true`;
      return ((await call("POST", path, versions[2])).body as { messages: string[] }).messages;
    };
    expect(await messagesOf("BACKWARD")).toEqual([expect.stringMatching(/^version 2: .*RESERVED_MESSAGE_NO_DELETE/)]);
    expect(await messagesOf("FULL_TRANSITIVE")).toEqual([
      expect.stringMatching(/^version 2: .*RESERVED_MESSAGE_NO_DELETE/),
      expect.stringMatching(/^version 1: .*field 2 \(c\): the number 2 was the field b/),
      expect.stringMatching(/^version 1: .*its type was string and is int32/),
    ]);
  });

  test("references are followed, pinned, and hold what they refer to", async () => {
    const money = fresh();
    const cart = fresh();
    await call(
      "POST",
      `/subjects/${money}/versions`,
      protobuf(proto3("message Money { int64 units = 1; }", "money.v1")),
    );
    const text = `syntax = "proto3"; import "money/v1/money.proto"; message Cart { money.v1.Money total = 1; }`;
    const references = [{ name: "money/v1/money.proto", subject: money, version: 1 }];
    expect(await codeOf("POST", `/subjects/${cart}/versions`, protobuf(text))).toEqual([422, 42201]);
    const wrong = [{ ...references[0], version: 3 }];
    expect(await codeOf("POST", `/subjects/${cart}/versions`, protobuf(text, wrong))).toEqual([422, 42201]);
    const { id } = (await call("POST", `/subjects/${cart}/versions`, protobuf(text, references))).body as {
      id: number;
    };
    expect((await call("GET", `/schemas/ids/${id}`)).body).toEqual(protobuf(text, references));
    expect((await call("GET", `/subjects/${money}/versions/1/referencedby`)).body).toEqual([id]);
    expect(await codeOf("DELETE", `/subjects/${money}/versions/1`)).toEqual([422, 42206]);
    expect(await codeOf("DELETE", `/subjects/${money}`)).toEqual([422, 42206]);

    // A change of what is referred to breaks who refers to it.
    await call("PUT", `/config/${money}`, { compatibility: "NONE" });
    await call(
      "POST",
      `/subjects/${money}/versions`,
      protobuf(proto3("message Money { string units = 1; }", "money.v1")),
    );
    const moved = protobuf(text, [{ ...references[0], version: 2 }]);
    const refused = await call("POST", `/subjects/${cart}/versions`, moved);
    expect(refused.status).toBe(409);
    expect(JSON.stringify(refused.body)).toContain("money/v1/money.proto: money.v1.Money: field 1 (units)");
    expect((await call("DELETE", `/subjects/${cart}`)).body).toEqual([1]);
    expect((await call("DELETE", `/subjects/${money}/versions/1`)).body).toBe(1);
  });

  test("configuration and mode, of the registry and of a subject", async () => {
    const subject = fresh();
    expect((await call("GET", "/config")).body).toEqual({ compatibilityLevel: "BACKWARD" });
    expect(await codeOf("GET", `/config/${subject}`)).toEqual([404, 40408]);
    expect((await call("GET", `/config/${subject}?defaultToGlobal=true`)).body).toEqual({
      compatibilityLevel: "BACKWARD",
    });
    expect(await codeOf("PUT", `/config/${subject}`, { compatibility: "SIDEWARD" })).toEqual([422, 42203]);
    expect((await call("PUT", `/config/${subject}`, { compatibility: "full" })).body).toEqual({
      compatibility: "FULL",
    });
    expect((await call("GET", `/config/${subject}`)).body).toEqual({ compatibilityLevel: "FULL" });
    expect((await call("DELETE", `/config/${subject}`)).body).toEqual({ compatibilityLevel: "FULL" });
    expect(await codeOf("DELETE", `/config/${subject}`)).toEqual([404, 40408]);

    expect((await call("GET", "/mode")).body).toEqual({ mode: "READWRITE" });
    expect(await codeOf("GET", `/mode/${subject}`)).toEqual([404, 40409]);
    expect(await codeOf("PUT", `/mode/${subject}`, { mode: "IMPORT" })).toEqual([422, 42204]);
    expect((await call("PUT", `/mode/${subject}`, { mode: "READONLY" })).body).toEqual({ mode: "READONLY" });
    expect(await codeOf("POST", `/subjects/${subject}/versions`, protobuf(order))).toEqual([422, 42205]);
    expect((await call("DELETE", `/mode/${subject}`)).body).toEqual({ mode: "READONLY" });
    expect((await call("POST", `/subjects/${subject}/versions`, protobuf(order))).status).toBe(200);
  });

  test("an org's limits hold: subjects, subjects with settings, versions of one subject", async () => {
    const made = await fetch(`${server.url}/v1/orgs`, {
      method: "POST",
      headers: { authorization: `Bearer ${server.adminKey}`, "content-type": "application/json" },
      body: '{"name":"small"}',
    });
    const { secret } = (await made.json()) as { secret: string };
    const cadre = createCadre({ baseUrl: server.url, apiKey: secret });
    await cadre.limits.set("subjects", 1);
    await cadre.limits.set("subject_versions", 1);
    const at = (subject: string, body: string) =>
      call("POST", `/subjects/${subject}/versions`, protobuf(proto3(body)), secret);
    expect((await at("one", "message A {}")).status).toBe(200);
    expect((await at("one", "message A {}")).status).toBe(200);
    const full = { status: 429, body: { error_code: 429, message: expect.stringContaining("the limit of 1 ") } };
    expect(await at("one", "message A { int32 a = 1; }")).toEqual(full);
    expect(await at("two", "message A {}")).toEqual(full);
    const put = (subject: string) => call("PUT", `/config/${subject}`, { compatibility: "FULL" }, secret);
    expect([(await put("one")).status, (await put("one")).status]).toEqual([200, 200]);
    expect(await put("two")).toEqual(full);
  });

  test("Avro and JSON Schema are kept, and compared with nothing", async () => {
    const record = (field: string) => ({
      schema: JSON.stringify({ type: "record", name: "R", fields: [{ name: field, type: "string" }] }),
    });
    const subject = fresh();
    expect((await call("POST", `/subjects/${subject}/versions`, record("a"))).status).toBe(200);
    const second = await call("POST", `/subjects/${subject}/versions`, record("b"));
    expect(second).toEqual({
      status: 409,
      body: { error_code: 409, message: expect.stringContaining("AVRO schemas are not compared") },
    });
    await call("PUT", `/config/${subject}`, { compatibility: "NONE" });
    expect((await call("POST", `/subjects/${subject}/versions`, record("b"))).status).toBe(200);
    const latest = (await call("GET", `/subjects/${subject}/versions/latest`)).body;
    expect(latest).toEqual({ subject, version: 2, id: expect.any(Number), ...record("b") });
    const json = { schemaType: "JSON", schema: '{"type": "object"}' };
    const { id } = (await call("POST", `/subjects/${fresh()}/versions`, json)).body as { id: number };
    expect((await call("GET", `/schemas/ids/${id}`)).body).toEqual(json);
    expect((await call("GET", "/schemas/types")).body).toEqual(["AVRO", "JSON", "PROTOBUF"]);
  });

  test.each([
    ["a schema that is none", "POST", "/subjects/x/versions", protobuf("message {"), [422, 42201]],
    [
      "a language that is not kept",
      "POST",
      "/subjects/x/versions",
      { schemaType: "THRIFT", schema: "x" },
      [422, 42201],
    ],
    ["no schema", "POST", "/subjects/x/versions", {}, [422, 42201]],
    ["rule sets", "POST", "/subjects/x/versions", { ...protobuf(order), ruleSet: {} }, [422, 422]],
    ["an id of its own", "POST", "/subjects/x/versions", { ...protobuf(order), id: 7 }, [422, 42205]],
    ["a context", "POST", `/subjects/${encodeURIComponent(":.prod:x")}/versions`, protobuf(order), [422, 42208]],
    ["a version that is no number", "GET", "/subjects/x/versions/first", undefined, [422, 42202]],
    ["the version zero", "GET", "/subjects/x/versions/0", undefined, [422, 42202]],
    ["an unknown subject", "GET", "/subjects/nobody/versions/1", undefined, [404, 40401]],
    ["an unknown schema", "POST", "/subjects/nobody", protobuf(order), [404, 40401]],
    ["an unknown id", "GET", "/schemas/ids/2147483647", undefined, [404, 40403]],
    [
      "a schema that is too large",
      "POST",
      "/subjects/x/versions",
      protobuf(`//${"x".repeat(1_100_000)}`),
      [422, 42209],
    ],
    ["a body that is too large", "POST", "/subjects/x/versions", protobuf("x".repeat(5_000_000)), [422, 42209]],
    ["an unknown route", "GET", "/subjects/x/y/z", undefined, [404, 404]],
    ["a method that the route has not", "PATCH", "/config", undefined, [405, 405]],
    ["a wrong page", "GET", "/subjects?limit=many", undefined, [422, 422]],
  ])("refused: %s", async (_what, method, path, body, expected) => {
    expect(await codeOf(method, path, body)).toEqual(expected);
  });

  test("20 registrations of one schema at once are one version, and of one under 20 subjects one id", async () => {
    const subject = fresh();
    const text = proto3(`message Unique { string ${subject.replaceAll("-", "_")} = 1; }`);
    const at = (name: string) => call("POST", `/subjects/${name}/versions`, protobuf(text));
    const same = await Promise.all(Array.from({ length: 20 }, () => at(subject)));
    const others = await Promise.all(Array.from({ length: 20 }, () => at(fresh())));
    expect(new Set([...same, ...others].map(({ body }) => JSON.stringify(body))).size).toBe(1);
    expect((await call("GET", `/subjects/${subject}/versions`)).body).toEqual([1]);
  });

  test("who may: scopes and roles of the contract, Basic with the key as password, and no other org's subjects", async () => {
    const subject = fresh();
    await call("POST", `/subjects/${subject}/versions`, protobuf(order));
    const cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
    const keyOf = async (role: "member" | "developer", scopes: string[]) =>
      (await cadre.keys.issue({ name: `${role} ${scopes}`, scopes, role })).secret;
    const reader = await keyOf("member", ["registry.read"]);
    const writer = await keyOf("developer", ["registry.*"]);
    expect((await call("GET", `/subjects/${subject}/versions`, undefined, reader)).body).toEqual([1]);
    expect(await codeOf("POST", `/subjects/${subject}/versions`, protobuf(order), reader)).toEqual([403, 403]);
    expect((await call("POST", `/subjects/${subject}/versions`, protobuf(order), writer)).status).toBe(200);
    expect(await codeOf("DELETE", `/subjects/${subject}`, undefined, writer)).toEqual([403, 403]);
    expect(await codeOf("PUT", "/config", { compatibility: "NONE" }, writer)).toEqual([403, 403]);
    expect(await codeOf("GET", "/subjects", undefined, "wrong")).toEqual([401, 401]);
    const basic = (secret: string) => ({ authorization: `Basic ${Buffer.from(`any:${secret}`).toString("base64")}` });
    expect((await fetch(`${base}/subjects`, { headers: basic(reader) })).status).toBe(200);
    expect((await fetch(`${base}/subjects`, { headers: basic("wrong") })).status).toBe(401);
    expect((await fetch(`${base}/subjects`)).status).toBe(401);

    const made = await fetch(`${server.url}/v1/orgs`, {
      method: "POST",
      headers: { authorization: `Bearer ${server.adminKey}`, "content-type": "application/json" },
      body: '{"name":"other"}',
    });
    const { secret } = (await made.json()) as { secret: string };
    const { id } = (await call("GET", `/subjects/${subject}/versions/1`)).body as { id: number };
    expect((await call("GET", "/subjects", undefined, secret)).body).toEqual([]);
    expect(await codeOf("GET", `/subjects/${subject}/versions/1`, undefined, secret)).toEqual([404, 40401]);
    expect(await codeOf("GET", `/schemas/ids/${id}`, undefined, secret)).toEqual([404, 40403]);
    const theirs = (await call("POST", `/subjects/${subject}/versions`, protobuf(order), secret)).body;
    expect(theirs).not.toEqual({ id });
  });
});

test("the same by Connect, from the contract", async () => {
  const transport = createConnectTransport({ baseUrl: server.url, httpVersion: "1.1" });
  const client = createClient(RegistryService, transport);
  const headers = { authorization: `Bearer ${server.adminKey}` };
  const subject = fresh();
  const { version } = await client.registerSchema({ subject, schema: { type: 3, schema: order } }, { headers });
  expect(version).toMatchObject({ subject, version: 1, type: 3, schema: order });
  const { subjects } = await client.listSubjects({ prefix: subject }, { headers });
  expect(subjects).toEqual([subject]);
});

describe("@kafkajs/confluent-schema-registry, unchanged", () => {
  test("registers Protobuf and Avro, and encodes and decodes by what it gets back", async () => {
    const registry = new SchemaRegistry({ host: base, auth: { username: "cadre", password: server.adminKey } });
    const subject = fresh();
    const { id } = await registry.register({ type: SchemaType.PROTOBUF, schema: order }, { subject });
    const frame = await registry.encode(id, { id: "o-1", amount: 3 });
    expect(await registry.decode(frame)).toMatchObject({ id: "o-1", amount: 3 });
    expect(await registry.getLatestSchemaId(subject)).toBe(id);
    expect(await registry.getRegistryId(subject, 1)).toBe(id);
    expect(await registry.getRegistryIdBySchema(subject, { type: SchemaType.PROTOBUF, schema: order })).toBe(id);

    const avro = { type: "record", name: "Sale", namespace: "shop", fields: [{ name: "sku", type: "string" }] };
    const sale = await registry.register({ type: SchemaType.AVRO, schema: JSON.stringify(avro) }, { subject: fresh() });
    expect(await registry.decode(await registry.encode(sale.id, { sku: "s-1" }))).toEqual({ sku: "s-1" });

    // Its own test of compatibility: the level that it set is told when it registers again.
    const other = proto3("message Order { int64 id = 1; int32 amount = 2; }");
    await expect(registry.register({ type: SchemaType.PROTOBUF, schema: other }, { subject })).rejects.toThrow(
      /FIELD_WIRE_COMPATIBLE_TYPE/,
    );
  });
});

describe("@confluentinc/schemaregistry, unchanged", () => {
  const clientOf = (): SchemaRegistryClient =>
    new SchemaRegistryClient({
      baseURLs: [base],
      basicAuthCredentials: { credentialsSource: "USER_INFO", userInfo: `cadre:${server.adminKey}` },
    });

  test("its whole client", async () => {
    const client = clientOf();
    const subject = `dir/${fresh()}`;
    const info: SchemaInfo = { schemaType: "PROTOBUF", schema: order };
    const id = await client.register(subject, info);
    expect(await client.getId(subject, info)).toBe(id);
    expect(await client.getVersion(subject, info)).toBe(1);
    expect(await client.getBySubjectAndId(subject, id)).toMatchObject(info);
    expect(await client.getLatestSchemaMetadata(subject)).toMatchObject({ id, version: 1, subject, ...info });
    expect(await client.getSchemaMetadata(subject, 1)).toMatchObject({ id, version: 1 });
    // It does not encode the name of this one path.
    const plain = fresh();
    await client.register(plain, info);
    expect(await client.getAllVersions(plain)).toEqual([1]);
    expect(await client.getAllSubjects()).toContain(subject);
    expect(await client.updateCompatibility(subject, "FORWARD" as never)).toBe("FORWARD");
    expect(await client.getCompatibility(subject)).toBe("FORWARD");
    expect(await client.testCompatibility(subject, 1, { schemaType: "PROTOBUF", schema: proto3("") })).toBe(false);
    expect(await client.testSubjectCompatibility(subject, info)).toBe(true);
    expect(await client.deleteSubjectVersion(subject, 1)).toBe(1);
    expect(await client.deleteSubjectVersion(subject, 1, true)).toBe(1);
    await client.close();
  });

  test("its serializer registers one of our contracts with all that it imports", async () => {
    const client = clientOf();
    const serializer = new ProtobufSerializer(client, SerdeType.VALUE, { autoRegisterSchemas: true });
    serializer.registry.add(RunChangedSchema);
    const topic = fresh();
    const frame = await serializer.serialize(topic, create(RunChangedSchema, { runId: "run_1" }));
    expect(fromBinary(RunChangedSchema, frame.subarray(6)).runId).toBe("run_1");
    const imported = RunChangedSchema.file.dependencies.map(({ name }) => `${name}.proto`);
    const ours = imported.filter((name) => !name.startsWith("google/protobuf/"));
    expect(await client.getAllSubjects()).toEqual(expect.arrayContaining([`${topic}-value`, ...ours]));
    const { schema, references } = await client.getLatestSchemaMetadata(`${topic}-value`);
    expect(schema).toContain("message RunChanged {");
    expect(references?.map(({ name }) => name)).toEqual(ours);
    await client.close();
  });

  test("its deserializer reads frames of a nested message whose file was registered as text, with a reference", async () => {
    const client = clientOf();
    const topic = fresh();
    const imported = protobuf(proto3("message Unit { string name = 1; }", "units.v1"));
    await call("POST", `/subjects/${topic}-units/versions`, imported);
    const text = `syntax = "proto3"; package shop.v1; import "units.proto"; import "google/protobuf/timestamp.proto";
      message First {}
      message Outer {
        message Unused {}
        message Inner { string word = 1; google.protobuf.Timestamp at = 2; units.v1.Unit unit = 3; }
      }`;
    const references = [{ name: "units.proto", subject: `${topic}-units`, version: 1 }];
    const registered = await call("POST", `/subjects/${topic}-value/versions`, protobuf(text, references));
    const { id } = registered.body as { id: number };
    const { schema } = await client.getBySubjectAndId(`${topic}-value`, id, "serialized");
    const file = fromBinary(FileDescriptorProtoSchema, Buffer.from(schema, "base64"));
    const units = await client.getSchemaMetadata(`${topic}-units`, 1, true, "serialized");
    const unitsFile = fromBinary(FileDescriptorProtoSchema, Buffer.from(units.schema, "base64"));
    unitsFile.name = "units.proto";
    const inner = createFileRegistry(file, (path) =>
      path === "units.proto" ? unitsFile : file_google_protobuf_timestamp,
    ).getMessage("shop.v1.Outer.Inner");
    if (inner === undefined) throw new Error("the descriptor lacks its nested message");
    // Magic byte, id, and two indexes in zigzag: message 1, nested message 1.
    const head = Buffer.from([0, 0, 0, 0, 0, 4, 2, 2]);
    head.writeInt32BE(id, 1);
    const frame = Buffer.concat([head, toBinary(inner, createWord(inner, "hello"))]);
    const deserializer = new ProtobufDeserializer(client, SerdeType.VALUE, {});
    const decoded: unknown = await deserializer.deserialize(topic, frame);
    expect(decoded).toMatchObject({ $typeName: "shop.v1.Outer.Inner", word: "hello" });
    await client.close();
  });
});

function createWord(inner: DescMessage, word: string): Message {
  const message = create(inner);
  const field = inner.fields.find(({ name }) => name === "word");
  if (field === undefined) throw new Error("no field word");
  reflect(inner, message).set(field, word);
  return message;
}
