import { metrics, trace } from "@opentelemetry/api";
import pino from "pino";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { consume } from "../../services/runtime/bus/consumer/consume.ts";
import { fromDeadLetterEvent, toRequeuedEvent } from "../../services/runtime/bus/dead-letter-event.ts";
import { eventIdOf } from "../../services/runtime/bus/envelope.ts";
import type { BusEvent, EventBus, Subscription } from "../../services/runtime/bus/event-bus.ts";
import { openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { busTopics, conversationTurns, deadLetterTopicOf } from "../../services/runtime/bus/topics.ts";
import { newId, toUuid } from "../../services/runtime/ids/id.ts";
import type { Database } from "../../services/runtime/postgres/database.ts";
import { migrate } from "../../services/runtime/postgres/migrator.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { type Collected, collectEvents } from "../support/collect-events.ts";
import { type EffectSchema, effectMigrations } from "../support/effect-schema.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { codec, turnEvent } from "../support/turn-facts.ts";
import { makeTopics, removeTopics } from "./kafka-topics.ts";

// The consumer with all its layers, over Apache Kafka.

const log = pino({ level: "silent" });
const connection = inject("kafka");
const group = "sample.effects";
const orgId = newId("org");
let server: TestDatabase;
let database: Database<EffectSchema>;
let bus: EventBus;
let consumer: Subscription;
let letters: Collected;
const throwing = new Set<string>();

beforeAll(async () => {
  await makeTopics(connection, busTopics);
  server = await createTestDatabase();
  await migrate({ url: server.url, service: "sample", migrations: effectMigrations, log });
  database = openDatabase<EffectSchema>({ url: server.url, service: "sample", log });
  bus = openKafkaEventBus({ connection: async () => connection, log, topics: busTopics, sessionMs: 6_000 });
  letters = collectEvents(bus, deadLetterTopicOf(conversationTurns.name), "test.letters");
  consumer = consume({
    bus,
    codec,
    topic: conversationTurns,
    group,
    database,
    handle: async ({ fact, eventId }, transaction) => {
      const row = { org_id: toUuid("org", orgId), event_id: eventId, seq: Number(fact.metadata?.seq) };
      await transaction.insertInto("effect").values(row).execute();
      if (throwing.has(eventId)) throw new Error("always");
    },
    log,
    tracer: trace.getTracer("test"),
    meter: metrics.getMeter("test"),
  });
}, 60_000);
afterAll(async () => {
  await consumer.stop();
  await bus.close();
  await database.close();
  await server.drop();
  await removeTopics(
    connection,
    busTopics.map(({ name }) => name),
  );
}, 60_000);

async function effects(): Promise<{ readonly total: number; readonly distinct: number }> {
  const rows = await database.engine.selectFrom("effect").select("event_id").execute();
  return { total: rows.length, distinct: new Set(rows.map(({ event_id: id }) => id)).size };
}

function partsOf({ key, headers, value }: BusEvent) {
  return { key, headers: { ...headers }, value: Buffer.from(value).toString("hex") };
}

test("600 events, each delivered twice, have one effect each; poison is put aside as it came, and requeued", async () => {
  const sessions = Array.from({ length: 20 }, () => newId("ses"));
  const events = await Promise.all(
    Array.from({ length: 600 }, (_, index) => turnEvent(orgId, sessions[index % 20] ?? "", index)),
  );
  const [garbled, failing] = [events[100], events[300]];
  if (garbled === undefined || failing === undefined) throw new Error("there are 600");
  const garbage = { ...garbled, value: Buffer.from("ff00fe01c0c1f5", "hex") };
  const sent = events.map((event) => (event === garbled ? garbage : event));
  throwing.add(eventIdOf(failing));
  await bus.publish(sent);
  await bus.publish(sent.filter((event) => event !== garbage && event !== failing));
  await expect.poll(() => letters.events.length, { timeout: 30_000 }).toBe(2);
  await expect.poll(effects, { timeout: 30_000 }).toEqual({ total: 598, distinct: 598 });

  const kept = letters.events.map(fromDeadLetterEvent);
  const byId = new Map(kept.map((letter) => [eventIdOf(letter.event), letter]));
  const undecodable = byId.get(eventIdOf(garbage));
  expect(undecodable?.failure).toMatchObject({ group, attempts: 1, reason: "MALFORMED_MESSAGE" });
  expect(undecodable && partsOf(undecodable.event)).toEqual(partsOf(garbage));
  const failed = byId.get(eventIdOf(failing));
  expect(failed?.failure).toMatchObject({ group, attempts: 3, reason: "INTERNAL" });
  expect(failed && partsOf(failed.event)).toEqual(partsOf(failing));

  throwing.clear();
  const again = toRequeuedEvent(failing, group);
  await bus.publish([again, again, toRequeuedEvent(garbage, "another.group")]);
  await expect.poll(effects, { timeout: 30_000 }).toEqual({ total: 599, distinct: 599 });
  expect(letters.events).toHaveLength(2);
}, 120_000);
