import { AuditService } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { IdentityService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { AuditRecorded } from "@cadre/gen/cadre/events/v1/audit_pb";
import { CredentialsChange, type CredentialsChanged } from "@cadre/gen/cadre/events/v1/credentials_pb";
import { createCadre } from "@cadre/sdk";
import pino from "pino";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { eventIdOf } from "../../services/runtime/bus/envelope.ts";
import { type KafkaEventBus, openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { agentAudit, busTopics, conversationTurns, credentialsChanged } from "../../services/runtime/bus/topics.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { collectEvents } from "../support/collect-events.ts";
import { callRaw } from "../support/connect-json.ts";
import { makeHeaviestEvent } from "../support/heaviest-event.ts";
import { codec } from "../support/turn-facts.ts";
import { crashKafka, startKafka } from "./kafka-control.ts";
import { makeTopics, removeTopics } from "./kafka-topics.ts";

// What credentials states, on Kafka, also when Kafka was away meanwhile.

const log = pino({ level: "silent" });
const connection = inject("kafka");
let server: RunningCadre;
let bus: KafkaEventBus;

beforeAll(async () => {
  await makeTopics(connection, busTopics);
  server = await startCadre({
    settings: { CADRE_BUS: "kafka", CADRE_KAFKA_BROKERS: connection.brokers.join(",") },
  });
  bus = openKafkaEventBus({ connection: async () => connection, log, sessionMs: 6_000 });
}, 180_000);
afterAll(async () => {
  await bus?.close();
  await server?.dispose();
  await startKafka();
  await removeTopics(
    connection,
    busTopics.map(({ name }) => name),
  );
});

test("the audit log and who may do what are on Kafka in order and whole, also what was done without it", {
  timeout: 240_000,
}, async () => {
  const recorded: AuditRecorded[] = [];
  const changed: CredentialsChanged[] = [];
  const cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const { orgId } = (await cadre.principal()).principal;
  const follow = { group: "test.credentials" };
  bus.subscribe({
    ...follow,
    topic: agentAudit.name,
    handle: async (event) => void recorded.push(await codec.decode(agentAudit, event)),
  });
  bus.subscribe({
    ...follow,
    topic: credentialsChanged.name,
    handle: async (event) => void changed.push(await codec.decode(credentialsChanged, event)),
  });
  const setLimit = (value: number) =>
    callRaw(server.url, IdentityService.method.setLimit, { name: "sessions", value }, server.adminKey);
  const { key } = await cadre.keys.issue({ name: "told", scopes: ["runs.read"] });
  expect((await setLimit(300)).status).toBe(200);
  await expect.poll(() => changed.length, { timeout: 60_000 }).toBe(1);

  await crashKafka();
  // Nobody waits for Kafka to revoke a key.
  await cadre.keys.revoke(key.keyId);
  expect((await setLimit(301)).status).toBe(200);
  await startKafka();
  await expect.poll(() => new Set(changed.map(({ metadata }) => metadata?.seq)).size, { timeout: 90_000 }).toBe(3);
  const { LIMITS, REVOKED } = CredentialsChange;
  const once = [...new Map(changed.map((fact) => [fact.metadata?.seq, fact])).values()];
  expect(once.map(({ change, subject }) => [change, subject])).toEqual([
    [LIMITS, ""],
    [REVOKED, key.keyId],
    [LIMITS, ""],
  ]);

  const asked = await callRaw(server.url, AuditService.method.listAuditEvents, { pageSize: 200 }, server.adminKey);
  const stored = (JSON.parse(asked.body).events as { hash: string; orgId?: string }[]).filter(
    (event) => event.orgId === orgId,
  );
  expect(stored.length).toBeGreaterThanOrEqual(4);
  const mine = () => recorded.filter(({ metadata }) => metadata?.orgId === orgId);
  const told = () => [...new Map(mine().map((fact) => [fact.metadata?.seq, fact])).values()];
  await expect.poll(() => told().length, { timeout: 90_000 }).toBeGreaterThanOrEqual(stored.length);
  expect(told().map(({ metadata }) => metadata?.seq)).toEqual(told().map((_, index) => BigInt(index + 1)));
  const hashes = new Set(told().map(({ hash }) => Buffer.from(hash).toString("hex")));
  expect(stored.filter(({ hash }) => !hashes.has(hash))).toEqual([]);
});

test("a broker takes the heaviest event that there can be", async () => {
  const { event } = await makeHeaviestEvent();
  const read = collectEvents(bus, conversationTurns.name, "test.heavy");
  await bus.publish([event]);
  await expect
    .poll(() => read.events.some((one) => eventIdOf(one) === eventIdOf(event)), { timeout: 60_000 })
    .toBe(true);
});
