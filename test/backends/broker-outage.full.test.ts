import { setTimeout as delay } from "node:timers/promises";
import { TurnChange } from "@cadre/gen/cadre/events/v1/turn_pb";
import { createCadre, type SessionHandle } from "@cadre/sdk";
import pino from "pino";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { busTopics, conversationTurns } from "../../services/runtime/bus/topics.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { say } from "../support/fault-driver.ts";
import { relayLagOf } from "../support/relay-lag.ts";
import { codec } from "../support/turn-facts.ts";
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
  const lag = await relayLagOf(server);
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
  await expect.poll(() => relayLagOf(server), { timeout: 30_000 }).toBe(0);
});
