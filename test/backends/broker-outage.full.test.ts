import { setTimeout as delay } from "node:timers/promises";
import { TurnChange } from "@cadre/gen/cadre/events/v1/turn_pb";
import { createCadre, type SessionHandle } from "@cadre/sdk";
import pino from "pino";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { createEventCodec } from "../../services/runtime/bus/envelope.ts";
import { openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { createLocalSchemaIds } from "../../services/runtime/bus/schema-ids.ts";
import { busTopics, conversationTurns } from "../../services/runtime/bus/topics.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { say } from "../support/fault-driver.ts";
import { type KafkaBroker, startKafkaBroker } from "./kafka-broker.ts";
import { makeTopics } from "./kafka-topics.ts";

// The one broker is away for three minutes while people go on talking.

const downMs = 180_000;
const drainMs = 60_000;
const sessionCount = 50;
/** Of each session while the broker is away: with three facts each, 4,500. */
const turnsPerSession = 30;
const whole = [TurnChange.ACCEPTED, TurnChange.STARTED, TurnChange.SUCCEEDED];
let broker: KafkaBroker;
let server: RunningCadre;

beforeAll(async () => {
  broker = await startKafkaBroker();
  await makeTopics(broker.connection, busTopics);
  server = await startCadre({
    settings: { CADRE_BUS: "kafka", CADRE_KAFKA_BROKERS: broker.connection.brokers.join(",") },
  });
});
afterAll(async () => {
  await server?.dispose();
  await broker?.stop();
});

/** Sends a turn, follows it to its end, and returns its id. */
async function runTurn(session: SessionHandle): Promise<string> {
  const ids = new Set<string>();
  for await (const { turnId } of session.stream("say it")) ids.add(turnId);
  const [turnId = ""] = ids;
  return turnId;
}

async function relayLag(): Promise<number> {
  const metrics = await (await fetch(new URL("/metrics", server.adminUrl))).text();
  return Number(/^cadre_relay_lag\{[^}]*relay="orchestrator"[^}]*\} (\d+)/m.exec(metrics)?.[1] ?? Number.NaN);
}

test("the broker is away for three minutes: no turn is refused, and every fact follows within a minute, in order", {
  timeout: 480_000,
}, async () => {
  // Nobody asks again: one refusal fails the test.
  const cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey, retry: { maxAttempts: 1 } });
  const bus = openKafkaEventBus({
    connection: async () => broker.connection,
    log: pino({ level: "silent" }),
    sessionMs: 6_000,
  });
  onTestFinished(() => bus.close());
  const codec = createEventCodec(createLocalSchemaIds());
  /** What is stated of the turns of a session, in the order of its arrival; what comes again at once is left out. */
  const stated = new Map<string, string[]>();
  bus.subscribe({
    topic: conversationTurns.name,
    group: "witness",
    handle: async (event) => {
      const { sessionId, turnId, change } = await codec.decode(conversationTurns, event);
      const facts = stated.get(sessionId) ?? [];
      const fact = `${turnId} ${TurnChange[change]}`;
      if (!facts.includes(fact)) facts.push(fact);
      stated.set(sessionId, facts);
    },
  });
  const sessions = await Promise.all(Array.from({ length: sessionCount }, () => cadre.sessions.create()));
  const turns = new Map<string, string[]>();
  for (const session of sessions) turns.set(session.sessionId, [await runTurn(session)]);
  const isComplete = () =>
    sessions.every(
      ({ sessionId }) => stated.get(sessionId)?.length === whole.length * (turns.get(sessionId) ?? []).length,
    );
  await expect.poll(isComplete, { timeout: 60_000 }).toBe(true);

  await broker.crash();
  const downSince = performance.now();
  await Promise.all(
    sessions.map(async (session, index) => {
      const ids = turns.get(session.sessionId) ?? [];
      for (let turn = 0; turn < turnsPerSession; turn++) {
        const dueMs = downSince + ((turn + index / sessionCount) * downMs) / turnsPerSession;
        await delay(Math.max(0, dueMs - performance.now()));
        ids.push(await runTurn(session));
      }
    }),
  );
  const lag = await relayLag();
  expect(lag).toBeGreaterThanOrEqual(sessionCount * turnsPerSession * whole.length);
  expect(performance.now() - downSince).toBeGreaterThan(downMs * 0.9);

  await broker.start();
  const backSince = performance.now();
  await expect.poll(isComplete, { timeout: 2 * drainMs, interval: 100 }).toBe(true);
  const tookMs = performance.now() - backSince;
  say(
    `${lag} entries waited, of ${sessionCount * turnsPerSession} turns; their facts were read ${Math.round(tookMs)} ms after the broker was back`,
  );
  expect(tookMs).toBeLessThan(drainMs);
  for (const { sessionId } of sessions) {
    const ids = turns.get(sessionId) ?? [];
    expect(stated.get(sessionId)).toEqual(ids.flatMap((id) => whole.map((change) => `${id} ${TurnChange[change]}`)));
  }
  await expect.poll(relayLag, { timeout: 30_000 }).toBe(0);
});
