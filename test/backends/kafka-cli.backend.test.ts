import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { createKafkaClient } from "../../services/runtime/bus/kafka/kafka-client.ts";
import { openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { busTopics } from "../../services/runtime/bus/topics.ts";
import { collect, numberedEvent } from "../support/event-bus-contract.ts";
import { type ProgramResult, runProgram } from "../support/run-program.ts";
import { makeTopics, removeTopics } from "./kafka-topics.ts";

const log = pino({ level: "silent" });
/** Kafka's number of the kind of resource that a topic is. */
const topicResource = 2;
const connection = inject("secureKafka");
let directory: string;
let settings: readonly string[];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "cadre-kafka-cli-"));
  const [authority, password] = [join(directory, "authority.pem"), join(directory, "password")];
  await writeFile(authority, connection.tls?.authority ?? "");
  await writeFile(password, `${connection.sasl?.password}\n`);
  settings = [
    "CADRE_BUS=kafka",
    `CADRE_KAFKA_BROKERS=${connection.brokers.join(",")}`,
    "CADRE_KAFKA_TLS=true",
    `CADRE_KAFKA_CA_FILE=${authority}`,
    `CADRE_KAFKA_USERNAME=${connection.sasl?.username}`,
    `CADRE_KAFKA_PASSWORD_FILE=${password}`,
    "NO_COLOR=1",
  ];
});
afterAll(async () => {
  await removeTopics(
    connection,
    busTopics.map(({ name }) => name),
  );
  await rm(directory, { recursive: true, force: true });
});

function cadre(...args: readonly string[]): Promise<ProgramResult> {
  const program = [process.execPath, "cli/bin/cadre.js", ...args];
  return runProgram("env", [...settings, ...program], { timeoutMs: 60_000 });
}

interface Plan {
  readonly differences: readonly Record<"topic" | "what" | "found" | "declared", string>[];
}

async function plan(): Promise<{ readonly code: number | null; readonly plan: Plan["differences"] }> {
  const { code, stdout, stderr } = await cadre("topics", "plan", "--replication", "1", "--json");
  expect(stderr).toBe("");
  return { code, plan: (JSON.parse(stdout) as Plan).differences };
}

interface Doctor {
  readonly findings: readonly Record<"name" | "state" | "detail" | "remedy", string>[];
}

async function doctorOnKafka(): Promise<Doctor["findings"]> {
  const { stdout } = await cadre("doctor", "--json");
  return (JSON.parse(stdout) as Doctor).findings.filter(({ name }) => name === "kafka");
}

test("makes the topics, shows what drifts from them, and mends what is safe", { timeout: 120_000 }, async () => {
  expect(await doctorOnKafka()).toEqual([
    expect.objectContaining({
      state: "failed",
      detail: expect.stringContaining("no topic"),
      remedy: "Run: cadre topics apply",
    }),
  ]);
  const before = await plan();
  expect(before.code).toBe(1);
  expect(before.plan.map(({ topic, what, found }) => ({ topic, what, found }))).toEqual(
    busTopics.map(({ name }) => ({ topic: name, what: "topic", found: "missing" })),
  );
  expect(await cadre("topics", "apply", "--replication", "1")).toMatchObject({
    code: 0,
    stderr: expect.stringContaining("agent.runs.v1.dlt: topic missing → 1 partitions"),
  });
  expect(await plan()).toEqual({ code: 0, plan: [] });
  expect(await cadre("topics", "apply", "--replication", "1")).toMatchObject({
    code: 0,
    stderr: expect.stringContaining("are as declared"),
  });
  expect(await doctorOnKafka()).toEqual([expect.objectContaining({ state: "ok" })]);

  // Somebody sets something of theirs, changes something of ours, and adds partitions.
  const admin = createKafkaClient(connection, log).admin();
  await admin.connect();
  const name = "agent.runs.v1";
  const set = (entries: Record<string, string>) =>
    admin.alterConfigs({
      validateOnly: false,
      resources: [
        {
          type: topicResource,
          name,
          configEntries: Object.entries(entries).map(([entry, value]) => ({ name: entry, value })),
        },
      ],
    });
  await set({ "max.message.bytes": "2000000", "cleanup.policy": "delete", "retention.ms": "1000000" });
  await admin.createPartitions({ topicPartitions: [{ topic: name, count: 13 }] });
  const drifted = await plan();
  expect(drifted.code).toBe(1);
  expect(drifted.plan).toEqual([
    expect.objectContaining({ topic: name, what: "partitions", found: "13", declared: "12", applied: false }),
    expect.objectContaining({ topic: name, what: "retention.ms", found: "1000000", applied: true }),
  ]);
  const applied = await cadre("topics", "apply", "--replication", "1");
  expect(applied.code).toBe(1);
  expect(applied.stdout).toContain("yours to decide");
  expect((await plan()).plan.map(({ what }) => what)).toEqual(["partitions"]);
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: topicResource, name, configNames: ["max.message.bytes"] }],
  });
  expect(resources[0]?.configEntries[0]?.configValue).toBe("2000000");
  expect(await doctorOnKafka()).toEqual([
    expect.objectContaining({ state: "failed", detail: expect.stringContaining("has 13 partitions") }),
  ]);
  await admin.deleteTopics({ topics: [name] });
  await admin.disconnect();
});

test("shows where groups are, and moves them when nobody runs", { timeout: 120_000 }, async () => {
  const topic = "conversation.turns.v1.dlt";
  await makeTopics(connection, busTopics); // those that are there stay
  const bus = openKafkaEventBus({ connection: async () => connection, log, topics: busTopics, sessionMs: 6_000 });
  await bus.publish(Array.from({ length: 10 }, (_, number) => numberedEvent(topic, "k", number)));
  const first = collect(bus, topic, "reader", 10);
  await first.done;

  const refused = await cadre(
    "events",
    "offsets",
    "reset",
    "--group",
    "reader",
    "--topic",
    topic,
    "--to",
    "earliest",
    "--yes",
  );
  expect(refused).toMatchObject({ code: 1, stderr: expect.stringMatching(/has members that run[^]*Stop them first/) });
  await first.stop();
  const list = async () => {
    const { stdout } = await cadre("events", "offsets", "list", "--json");
    const { offsets } = JSON.parse(stdout) as { readonly offsets: readonly { readonly group: string }[] };
    return offsets.filter(({ group }) => group === "reader"); // other suites have theirs
  };
  const place = { group: "reader", topic, partition: 0, end_offset: "10" };
  expect(await list()).toEqual([{ ...place, next_offset: "10", lag: "0" }]);

  const reset = await cadre(
    "events",
    "offsets",
    "reset",
    "--group",
    "reader",
    "--topic",
    topic,
    "--to",
    "earliest",
    "--yes",
  );
  expect(reset.code, reset.stderr).toBe(0);
  expect(await list()).toEqual([{ ...place, next_offset: "0", lag: "10" }]);
  const again = collect(bus, topic, "reader", 10);
  await again.done;
  await again.stop();
  expect(again.events.map(({ headers }) => headers.number)).toEqual(first.events.map(({ headers }) => headers.number));

  const late = new Date(Date.now() + 60_000).toISOString();
  await cadre("events", "offsets", "reset", "--group", "reader", "--topic", topic, "--to", "earliest", "--yes");
  expect(
    (await cadre("events", "offsets", "reset", "--group", "reader", "--topic", topic, "--to", late, "--yes")).code,
  ).toBe(0);
  expect(await list()).toEqual([{ ...place, next_offset: "10", lag: "0" }]);
  expect(
    (await cadre("events", "offsets", "reset", "--group", "reader", "--topic", "none", "--to", "latest")).code,
  ).toBe(2);
  await bus.close();
});
