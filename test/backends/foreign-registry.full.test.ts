import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { RunChangedSchema } from "@cadre/gen/cadre/events/v1/run_pb";
import { TurnChange, type TurnChanged, TurnChangedSchema } from "@cadre/gen/cadre/events/v1/turn_pb";
import { createCadre } from "@cadre/sdk";
import { ProtobufSerializer, SchemaRegistryClient, SerdeType } from "@confluentinc/schemaregistry";
import { SchemaRegistry, SchemaType } from "@kafkajs/confluent-schema-registry";
import pino from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEventCodec } from "../../services/runtime/bus/envelope.ts";
import { openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { createRegistrySchemaIds } from "../../services/runtime/bus/registry-schema-ids.ts";
import { agentRuns, busTopics, conversationTurns, subjectOf, topics } from "../../services/runtime/bus/topics.ts";
import { decodeWire } from "../../services/runtime/bus/wire-codec.ts";
import { startCadre } from "../support/cadre.ts";
import { runProgram } from "../support/run-program.ts";
import { type ForeignRegistry, startApicurio } from "./apicurio.ts";
import { type KafkaBroker, startKafkaBroker } from "./kafka-broker.ts";
import { makeTopics } from "./kafka-topics.ts";

// Apicurio in the place of our registry: as both npm clients see it, and with
// the facts of a Cadre under its ids.

const log = pino({ level: "silent" });
const proto3 = (body: string): string => `syntax = "proto3"; package shop.v1; ${body}`;
const order = proto3("message Order { string id = 1; int32 amount = 2; }");
const breaking = proto3("message Order { int64 id = 1; int32 amount = 2; }");
let registry: ForeignRegistry;
let client: SchemaRegistryClient;

beforeAll(async () => {
  registry = await startApicurio();
  client = new SchemaRegistryClient({ baseURLs: [registry.url] });
});
afterAll(async () => {
  await client?.close();
  await registry?.stop();
});

describe("the clients of npm", () => {
  test("@kafkajs/confluent-schema-registry registers Protobuf and Avro, and reads what it wrote", async () => {
    const kafkajs = new SchemaRegistry({ host: registry.url });
    const subject = randomUUID();
    const { id } = await kafkajs.register({ type: SchemaType.PROTOBUF, schema: order }, { subject });
    expect(await kafkajs.decode(await kafkajs.encode(id, { id: "o-1", amount: 3 }))).toMatchObject({ id: "o-1" });
    expect(await kafkajs.getLatestSchemaId(subject)).toBe(id);
    expect(await kafkajs.getRegistryId(subject, 1)).toBe(id);
    expect(await kafkajs.getRegistryIdBySchema(subject, { type: SchemaType.PROTOBUF, schema: order })).toBe(id);

    const avro = { type: "record", name: "Sale", namespace: "shop", fields: [{ name: "sku", type: "string" }] };
    const sale = { type: SchemaType.AVRO, schema: JSON.stringify(avro) } as const;
    const { id: saleId } = await kafkajs.register(sale, { subject: randomUUID() });
    expect(await kafkajs.decode(await kafkajs.encode(saleId, { sku: "s-1" }))).toEqual({ sku: "s-1" });
  });

  test("@confluentinc/schemaregistry: its whole client", async () => {
    const subject = randomUUID();
    const info = { schemaType: "PROTOBUF", schema: order };
    const id = await client.register(subject, info);
    expect(await client.getId(subject, info)).toBe(id);
    expect(await client.getVersion(subject, info)).toBe(1);
    expect(await client.getLatestSchemaMetadata(subject)).toMatchObject({ id, version: 1, subject, ...info });
    expect(await client.getSchemaMetadata(subject, 1)).toMatchObject({ id, version: 1 });
    expect(await client.getAllVersions(subject)).toEqual([1]);
    expect(await client.getAllSubjects()).toContain(subject);
    expect(await client.updateCompatibility(subject, "BACKWARD" as never)).toBe("BACKWARD");
    expect(await client.getCompatibility(subject)).toBe("BACKWARD");
    expect(await client.testSubjectCompatibility(subject, info)).toBe(true);
    expect(await client.testCompatibility(subject, 1, { schemaType: "PROTOBUF", schema: breaking })).toBe(false);
    await expect(client.register(subject, { schemaType: "PROTOBUF", schema: breaking })).rejects.toThrow(
      /409|ncompatib/,
    );
    expect(await client.deleteSubjectVersion(subject, 1)).toBe(1);
    expect(await client.deleteSubjectVersion(subject, 1, true)).toBe(1);
  });
});

describe("the facts of a Cadre under its ids", () => {
  const ids = () => createRegistrySchemaIds({ url: registry.url, credentialsFile: undefined });
  let broker: KafkaBroker;

  beforeAll(async () => {
    broker = await startKafkaBroker();
    await makeTopics(broker.connection, busTopics);
  }, 240_000);
  afterAll(() => broker?.stop());

  test("what is not registered is named, and a push registers it with all that it imports, once", async () => {
    await expect(ids().idOf(subjectOf(conversationTurns), TurnChangedSchema.file)).rejects.toMatchObject({
      reason: "SCHEMA_NOT_REGISTERED",
    });
    const push = () =>
      runProgram(process.execPath, [
        ...["cli/bin/cadre.js", "contracts", "push", "--own", "--json"],
        ...["--registry-url", registry.url],
      ]);
    const first = await push();
    expect(first.code, first.stderr).toBe(0);
    const { registered } = JSON.parse(first.stdout) as { registered: readonly { subject: string }[] };
    const subjects = registered.map(({ subject }) => subject);
    expect(subjects).toEqual(expect.arrayContaining(topics.map(subjectOf)));
    expect(subjects.indexOf("cadre/errors/v1/reason.proto")).toBeLessThan(subjects.indexOf(subjectOf(agentRuns)));
    expect(JSON.parse((await push()).stdout)).toEqual({ registered: [], unchanged: registered.length });

    // Confluent's serializer finds the same: nothing is registered twice.
    const serializer = new ProtobufSerializer(client, SerdeType.VALUE, { autoRegisterSchemas: true });
    for (const { message } of topics) serializer.registry.add(message);
    for (const { name, message } of topics) await serializer.serialize(name, create(message));
    const id = await ids().idOf(subjectOf(conversationTurns), TurnChangedSchema.file);
    const { references } = await client.getLatestSchemaMetadata(subjectOf(conversationTurns));
    expect(references?.map(({ name }) => name)).toContain("cadre/errors/v1/reason.proto");
    const file = await ids().fileOf(id);
    expect(file?.messages.map(({ typeName }) => typeName)).toContain(TurnChangedSchema.typeName);
    const runs = await ids().idOf("agent.runs.v1-value", RunChangedSchema.file);
    expect((await ids().fileOf(runs))?.messages.map(({ typeName }) => typeName)).toContain(RunChangedSchema.typeName);
    expect(await ids().fileOf(2_000_000)).toBeUndefined();
  });

  test("a turn is stated under its id, and decoded by asking it for the schema", { timeout: 240_000 }, async () => {
    const server = await startCadre({
      settings: {
        CADRE_BUS: "kafka",
        CADRE_KAFKA_BROKERS: broker.connection.brokers.join(","),
        CADRE_REGISTRY_URL: registry.url,
      },
    });
    const bus = openKafkaEventBus({ connection: async () => broker.connection, log, sessionMs: 6_000 });
    try {
      const codec = createEventCodec(ids());
      const facts: TurnChanged[] = [];
      const schemaIds = new Set<number>();
      bus.subscribe({
        topic: conversationTurns.name,
        group: "witness",
        handle: async (event) => {
          schemaIds.add(decodeWire(event.value).schemaId);
          facts.push(await codec.decode(conversationTurns, event));
        },
      });
      const cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
      const session = await cadre.sessions.create();
      await session.send("hello");
      await expect.poll(() => facts.at(-1)?.change, { timeout: 60_000 }).toBe(TurnChange.SUCCEEDED);
      expect(facts.every(({ sessionId }) => sessionId === session.sessionId)).toBe(true);
      expect([...schemaIds]).toEqual([await ids().idOf(subjectOf(conversationTurns), TurnChangedSchema.file)]);
    } finally {
      await bus.close();
      await server.dispose();
    }
  });
});
