import { TurnChange } from "@cadre/gen/cadre/events/v1/turn_pb";
import { type Cadre, CadreError, createCadre, ServingState } from "@cadre/sdk";
import pino from "pino";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { createEventCodec } from "../../services/runtime/bus/envelope.ts";
import { type KafkaEventBus, openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { createLocalSchemaIds } from "../../services/runtime/bus/schema-ids.ts";
import { busTopics, conversationTurns } from "../../services/runtime/bus/topics.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { crashKafka, startKafka } from "./kafka-control.ts";
import { makeTopics, removeTopics } from "./kafka-topics.ts";

const connection = inject("kafka");
const log = pino({ level: "silent" });
/** What is stated of a turn that succeeds, in this order; one may be stated again. */
const whole = [TurnChange.ACCEPTED, TurnChange.STARTED, TurnChange.SUCCEEDED];
/** google.rpc.Code */
const unavailable = 14;
/** Journal entries that may wait for the bus. */
const bound = 60;
let server: RunningCadre;
let cadre: Cadre;
let bus: KafkaEventBus | undefined;
/** What a consumer outside of Cadre has read: the changes of each turn. */
const changes = new Map<string, TurnChange[]>();

beforeAll(async () => {
  await makeTopics(connection, busTopics);
  await crashKafka();
  server = await startCadre({
    settings: {
      CADRE_BUS: "kafka",
      CADRE_KAFKA_BROKERS: connection.brokers.join(","),
      CADRE_MAX_UNRELAYED_ENTRIES: String(bound),
    },
  });
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey, retry: { maxAttempts: 1 } });
});
afterAll(async () => {
  await bus?.close();
  await server?.dispose();
  await startKafka();
  await removeTopics(
    connection,
    busTopics.map(({ name }) => name),
  );
});

/** Sends a turn, follows it to its end, and returns its id. */
async function runTurn(): Promise<string> {
  const session = await cadre.sessions.create();
  const ids = new Set<string>();
  for await (const { turnId } of session.stream("calculator: 6 * 7")) ids.add(turnId);
  const [turnId = ""] = ids;
  return turnId;
}

async function kafkaHealth(): Promise<{ readonly state: ServingState; readonly detail: string } | undefined> {
  const { services } = await cadre.health();
  const orchestrator = services.find(({ service }) => service === "orchestrator");
  return orchestrator?.dependencies.find(({ name }) => name === "kafka");
}

async function witness(): Promise<KafkaEventBus> {
  const opened = openKafkaEventBus({ connection: async () => connection, log, sessionMs: 6_000 });
  const codec = createEventCodec(createLocalSchemaIds());
  opened.subscribe({
    topic: conversationTurns.name,
    group: "witness",
    handle: async (event) => {
      const fact = await codec.decode(conversationTurns, event);
      changes.set(fact.turnId, [...(changes.get(fact.turnId) ?? []), fact.change]);
    },
  });
  return opened;
}

test("Kafka is away from the start: turns go on up to the bound, are refused past it, and their facts follow", {
  timeout: 240_000,
}, async () => {
  await expect.poll(kafkaHealth, { timeout: 60_000 }).toMatchObject({
    state: ServingState.NOT_SERVING,
    detail: expect.stringMatching(/Kafka cannot be reached at 127\.0\.0\.1.*Start the brokers/),
  });
  const accepted: string[] = [];
  let refused: unknown;
  while (refused === undefined && accepted.length < bound) {
    try {
      accepted.push(await runTurn());
    } catch (error) {
      refused = error;
    }
  }
  expect(accepted.length).toBeGreaterThan(2);
  if (!(refused instanceof CadreError)) throw refused;
  expect(refused).toMatchObject({ reason: "BACKPRESSURE", code: unavailable, retryAfterMs: 5_000, retryable: true });

  await startKafka();
  await expect.poll(kafkaHealth, { timeout: 60_000 }).toMatchObject({ state: ServingState.SERVING });
  bus = await witness();
  for (const turnId of accepted) {
    await expect.poll(() => changes.get(turnId)?.at(-1), { timeout: 60_000 }).toBe(TurnChange.SUCCEEDED);
    expect([...new Set(changes.get(turnId))]).toEqual(whole);
  }
  const turnId = await runTurn();
  await expect.poll(() => changes.get(turnId)?.at(-1), { timeout: 60_000 }).toBe(TurnChange.SUCCEEDED);
  const metrics = await (await fetch(new URL("/metrics", server.adminUrl))).text();
  expect(metrics).toMatch(/^cadre_bus_up(\{[^}]*\})? 1\b/m);
  expect(metrics).toMatch(/^cadre_bus_lag\{[^}]*topic="conversation\.turns\.v1\.dlt"[^}]*\} 0\b/m);
});

test("Kafka goes away: turns go on, readiness names it, and when it is back their facts follow", {
  timeout: 240_000,
}, async () => {
  await crashKafka();
  const during = await runTurn();
  await expect.poll(kafkaHealth, { timeout: 60_000 }).toMatchObject({ state: ServingState.NOT_SERVING });
  // Who sends requests here goes on: nobody but facts has to wait.
  expect((await cadre.health()).state).toBe(ServingState.SERVING);
  expect((await fetch(new URL("/health", server.url))).status).toBe(200);
  await startKafka();
  await expect.poll(() => changes.get(during)?.at(-1), { timeout: 60_000 }).toBe(TurnChange.SUCCEEDED);
  expect([...new Set(changes.get(during))]).toEqual(whole);
  await expect.poll(kafkaHealth, { timeout: 60_000 }).toMatchObject({ state: ServingState.SERVING });
});
