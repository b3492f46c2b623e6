import { type Cadre, createCadre, reasonName } from "@cadre/sdk";
import { metrics, trace } from "@opentelemetry/api";
import pino from "pino";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { consume } from "../../services/runtime/bus/consumer/consume.ts";
import type { EventBus, Subscription } from "../../services/runtime/bus/event-bus.ts";
import { openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { busTopics, conversationTurns } from "../../services/runtime/bus/topics.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import type { Database } from "../../services/runtime/postgres/database.ts";
import { migrate } from "../../services/runtime/postgres/migrator.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { type EffectSchema, effectMigrations } from "../support/effect-schema.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { codec, turnEvent } from "../support/turn-facts.ts";
import { makeTopics, removeTopics } from "./kafka-topics.ts";

// A Cadre whose facts go to Apache Kafka keeps the dead letters of its consumers,
// and gives them back.

const log = pino({ level: "silent" });
const connection = inject("kafka");
let database: TestDatabase;
let server: RunningCadre;
let cadre: Cadre;
let sample: Database<EffectSchema>;
let bus: EventBus;
let consumer: Subscription;
let isBroken = true;
const handled: string[] = [];

beforeAll(async () => {
  await makeTopics(connection, busTopics);
  database = await createTestDatabase();
  server = await startCadre({
    settings: {
      CADRE_DATABASE_URL: database.url,
      CADRE_BUS: "kafka",
      CADRE_KAFKA_BROKERS: connection.brokers.join(","),
    },
  });
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  await migrate({ url: database.url, service: "sample", migrations: effectMigrations, log });
  sample = openDatabase<EffectSchema>({ url: database.url, service: "sample", log });
  bus = openKafkaEventBus({ connection: async () => connection, log, topics: busTopics, sessionMs: 6_000 });
  consumer = consume({
    bus,
    codec,
    topic: conversationTurns,
    group: "sample.turns",
    database: sample,
    handle: async ({ eventId }) => {
      if (isBroken) throw new Error("broken");
      handled.push(eventId);
    },
    log,
    tracer: trace.getTracer("test"),
    meter: metrics.getMeter("test"),
  });
}, 120_000);
afterAll(async () => {
  await consumer.stop();
  await bus.close();
  await sample.close();
  await server.dispose();
  await database.drop();
  await removeTopics(
    connection,
    busTopics.map(({ name }) => name),
  );
}, 120_000);

test("what a consumer could not handle is kept, and requeued to it once", async () => {
  const { orgId } = (await cadre.principal()).principal;
  const event = await turnEvent(orgId, newId("ses"), 1);
  await bus.publish([event]);
  const letters = () => Array.fromAsync(cadre.deadLetters.list({ group: "sample.turns" }));
  await expect.poll(async () => (await letters()).length, { timeout: 30_000 }).toBe(1);
  const [letter] = await letters();
  expect(letter).toMatchObject({ topic: event.topic, attempts: 3, size: event.value.length });
  expect(letter === undefined ? "" : reasonName(letter.reason)).toBe("INTERNAL");

  isBroken = false;
  const { deadLetterId = "" } = letter ?? {};
  await Promise.all(Array.from({ length: 20 }, () => cadre.deadLetters.requeue(deadLetterId)));
  await expect.poll(() => handled.length, { timeout: 30_000 }).toBe(1);
  // A turn of the server itself goes the same way, behind it.
  const session = await cadre.sessions.create();
  await session.send("hello");
  await expect.poll(() => handled.length, { timeout: 30_000 }).toBe(4);
  expect(new Set(handled).size).toBe(4);
}, 120_000);
