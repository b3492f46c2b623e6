import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, createFileRegistry, type DescFile, type DescMessage, toBinary } from "@bufbuild/protobuf";
import {
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import pino from "pino";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { eventIdOf } from "../../services/runtime/bus/envelope.ts";
import type { BusEvent } from "../../services/runtime/bus/event-bus.ts";
import { openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { conversationTurns } from "../../services/runtime/bus/topics.ts";
import { decodeWire, encodeWire } from "../../services/runtime/bus/wire-codec.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { runProgram } from "../support/run-program.ts";
import { turnEvent } from "../support/turn-facts.ts";
import { jvmOptions } from "./downloads.ts";
import { kafkaClassPath } from "./kafka-distribution.ts";
import { makeTopics, removeTopics } from "./kafka-topics.ts";

// What others read of our events: Kafka's own console consumer, and a program on
// the JVM that knows nothing but Confluent's frame and the descriptors.

const connection = inject("kafka");
const topics = [{ name: "jvm", partitions: 1 }];
const field = { name: "text", number: 1, type: Type.STRING, label: Label.OPTIONAL, jsonName: "text" };
const sample = create(FileDescriptorProtoSchema, {
  name: "sample/v1/sample.proto",
  package: "sample.v1",
  syntax: "proto3",
  messageType: [
    { name: "First", field: [field] },
    { name: "Second", field: [field], nestedType: [{ name: "Other" }, { name: "Nested", field: [field] }] },
  ],
});
const sampleId = 7;
let directory: string;
let classPath: string;
let published: readonly BusEvent[];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "cadre-jvm-"));
  classPath = await kafkaClassPath();
  await makeTopics(connection, topics);
  const bus = openKafkaEventBus({ connection: async () => connection, log: pino({ level: "silent" }), topics });
  const file = createFileRegistry(create(FileDescriptorSetSchema, { file: [sample] })).getFile(sample.name);
  const [first, second] = file?.messages ?? [];
  const nested = second?.nestedMessages[1];
  if (first === undefined || second === undefined || nested === undefined) throw new Error("the file has three");
  const framed = (schema: DescMessage, key: string): BusEvent => ({
    topic: "jvm",
    key,
    headers: { "cadre-event-id": `evt-${key}` },
    value: encodeWire(sampleId, schema, create(schema, { text: `of ${key}, héllo` })),
  });
  const turn = await turnEvent(
    newId("org"),
    newId("ses"),
    3,
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
  );
  published = [framed(first, "a"), framed(second, "b"), framed(nested, "c"), { ...turn, topic: "jvm" }];
  await bus.publish(published);
  await bus.close();
});
afterAll(async () => {
  await removeTopics(connection, ["jvm"]);
  await rm(directory, { recursive: true, force: true });
});

async function java(...args: readonly string[]): Promise<readonly string[]> {
  const given = [...jvmOptions, "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-cp", classPath, ...args];
  const { stdout, stderr, code } = await runProgram("java", given, { timeoutMs: 120_000 });
  expect(code, stderr).toBe(0);
  return stdout.trimEnd().split("\n");
}

test("ConsoleConsumer shows keys and headers", { timeout: 150_000 }, async () => {
  const lines = await java(
    "org.apache.kafka.tools.consumer.ConsoleConsumer",
    ...["--bootstrap-server", connection.brokers.join(","), "--topic", "jvm", "--from-beginning"],
    ...["--max-messages", String(published.length), "--timeout-ms", "60000"],
    ...["print.key=true", "print.headers=true", "print.value=false"].flatMap((one) => ["--property", one]),
  );
  const shown = published.map(({ key, headers }) => {
    const pairs = Object.entries(headers).map(([name, value]) => `${name}:${value}`);
    return `${pairs.join(",")}\t${key}`;
  });
  expect(lines).toEqual(shown);
  expect(lines.at(-1)).toContain("traceparent:00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
});

test("a program on the JVM takes id and indexes off the frame, and decodes each message", {
  timeout: 150_000,
}, async () => {
  const turn = published.at(-1);
  if (turn === undefined) throw new Error("a turn was published");
  const turnId = decodeWire(turn.value).schemaId;
  const contract = conversationTurns.message.file;
  const set = join(directory, "files.binpb");
  const descriptors = create(FileDescriptorSetSchema, { file: [sample, ...withImports(contract)] });
  await writeFile(set, toBinary(FileDescriptorSetSchema, descriptors));
  const lines = await java(
    join(import.meta.dirname, "ReadFrames.java"),
    ...[connection.brokers.join(","), "jvm", String(published.length), set],
    ...[`${sampleId}=${sample.name}`, `${turnId}=${contract.proto.name}`],
  );
  const text = (key: string) => `text: "of ${key}, h\\303\\251llo"`;
  expect(lines.slice(0, 3)).toEqual([
    `a\t${sampleId}\t[0]\tsample.v1.First\t${text("a")}`,
    `b\t${sampleId}\t[1]\tsample.v1.Second\t${text("b")}`,
    `c\t${sampleId}\t[1, 1]\tsample.v1.Second.Nested\t${text("c")}`,
  ]);
  expect(lines[3]).toContain(`${turn.key}\t${turnId}\t[`);
  expect(lines[3]).toContain(conversationTurns.message.typeName);
  expect(lines[3]).toContain(eventIdOf(turn));
});

/** A file's descriptor behind those of all that it imports. */
function withImports(file: DescFile): readonly FileDescriptorProto[] {
  const found = new Map<string, FileDescriptorProto>();
  const add = (one: DescFile): void => {
    if (found.has(one.proto.name)) return;
    one.dependencies.forEach(add);
    found.set(one.proto.name, one.proto);
  };
  add(file);
  return [...found.values()];
}
