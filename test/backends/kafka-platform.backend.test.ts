import { TurnChange } from "@cadre/gen/cadre/events/v1/turn_pb";
import { type Cadre, createCadre, ServingState } from "@cadre/sdk";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createEventCodec } from "../../services/runtime/bus/envelope.ts";
import { type KafkaEventBus, openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { createLocalSchemaIds } from "../../services/runtime/bus/schema-ids.ts";
import { conversationTurns } from "../../services/runtime/bus/topics.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { runProgram } from "../support/run-program.ts";
import { type KafkaBroker, startKafkaBroker } from "./kafka-broker.ts";

const log = pino({ level: "silent" });
/** What is stated of a turn that succeeds, in this order; one may be stated again. */
const whole = [TurnChange.ACCEPTED, TurnChange.STARTED, TurnChange.SUCCEEDED];
let broker: KafkaBroker;
let server: RunningCadre;
let cadre: Cadre;
let bus: KafkaEventBus;
/** What a consumer outside of Cadre has read: the changes of each turn. */
const changes = new Map<string, TurnChange[]>();

beforeAll(async () => {
  broker = await startKafkaBroker({ security: "none" });
  const [address = ""] = broker.connection.brokers;
  const made = await runProgram(
    process.execPath,
    ["cli/bin/cadre.js", "topics", "apply", "--kafka-brokers", address, "--replication", "1"],
    { timeoutMs: 60_000 },
  );
  expect(made.code, made.stderr).toBe(0);
  server = await startCadre({ settings: { CADRE_BUS: "kafka", CADRE_KAFKA_BROKERS: address } });
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  bus = openKafkaEventBus({ connection: async () => broker.connection, log, sessionMs: 6_000 });
  const codec = createEventCodec(createLocalSchemaIds());
  bus.subscribe({
    topic: conversationTurns.name,
    group: "witness",
    handle: async (event) => {
      const fact = await codec.decode(conversationTurns, event);
      changes.set(fact.turnId, [...(changes.get(fact.turnId) ?? []), fact.change]);
    },
  });
});
afterAll(async () => {
  await bus?.close();
  await server?.dispose();
  await broker?.stop();
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

test("the facts of a turn reach Kafka, and the metrics say how it is", async () => {
  const turnId = await runTurn();
  await expect.poll(() => changes.get(turnId)?.at(-1), { timeout: 20_000 }).toBe(TurnChange.SUCCEEDED);
  expect([...new Set(changes.get(turnId))]).toEqual(whole);
  expect(await kafkaHealth()).toMatchObject({ state: ServingState.SERVING });
  const metrics = await (await fetch(new URL("/metrics", server.adminUrl))).text();
  expect(metrics).toMatch(/^cadre_bus_up(\{[^}]*\})? 1\b/m);
  expect(metrics).toMatch(/^cadre_bus_lag\{[^}]*topic="conversation\.turns\.v1\.dlt"[^}]*\} 0\b/m);
});

test("while Kafka is away turns go on and readiness names it; when it is back their facts follow", {
  timeout: 120_000,
}, async () => {
  await broker.crash();
  const during = [await runTurn(), await runTurn()];
  await expect.poll(kafkaHealth, { timeout: 30_000 }).toMatchObject({
    state: ServingState.NOT_SERVING,
    detail: expect.stringMatching(/Kafka cannot be reached at 127\.0\.0\.1.*Start the brokers/),
  });
  during.push(await runTurn());
  await broker.start();
  for (const turnId of during) {
    await expect.poll(() => changes.get(turnId)?.at(-1), { timeout: 60_000 }).toBe(TurnChange.SUCCEEDED);
    expect([...new Set(changes.get(turnId))]).toEqual(whole);
  }
  await expect.poll(kafkaHealth, { timeout: 30_000 }).toMatchObject({ state: ServingState.SERVING });
});
