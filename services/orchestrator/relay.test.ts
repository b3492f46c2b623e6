import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { RunChange } from "@cadre/gen/cadre/events/v1/run_pb";
import { TurnChange } from "@cadre/gen/cadre/events/v1/turn_pb";
import pino from "pino";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  endsTurn,
  migrateOrchestrator,
  newSession,
  readEvents,
  startTestOrchestrator,
  type TestOrchestrator,
} from "../../test/support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../../test/support/postgres.ts";
import { createEventCodec } from "../runtime/bus/envelope.ts";
import type { BusEvent, EventBus } from "../runtime/bus/event-bus.ts";
import { type Relay, startRelay } from "../runtime/bus/relay.ts";
import { createLocalSchemaIds } from "../runtime/bus/schema-ids.ts";
import { agentRuns, conversationTurns } from "../runtime/bus/topics.ts";
import type { Logger } from "../runtime/log/log.ts";
import { createJournalRelaySource } from "./events/journal-relay-source.ts";

let database: TestDatabase;
let worlds: TestOrchestrator[];
let relays: Relay[];
const log = pino({ level: "silent" }) as Logger;
const codec = createEventCodec(createLocalSchemaIds());

beforeEach(async () => {
  worlds = [];
  relays = [];
  database = await createTestDatabase();
  await migrateOrchestrator(database.url);
});

afterEach(async () => {
  for (const relay of relays) await relay.stop();
  for (const world of worlds) await world.stop();
  await database.drop();
});

/** Keeps what is published, and fails when it is told to. */
class FakeBus {
  readonly published: BusEvent[] = [];
  down = false;

  async publish(events: readonly BusEvent[]): Promise<void> {
    if (this.down) throw new Error("the bus is down");
    this.published.push(...events);
  }
}

function relay(world: TestOrchestrator, bus: FakeBus, withSteps = false): void {
  const { engine } = world.orchestrator;
  const source = createJournalRelaySource({
    database: world.database,
    codec,
    withSteps,
    writer: () => engine.status.writer,
    onLag: (entries) => engine.setUnrelayed(entries),
  });
  relays.push(startRelay({ name: "test", source, bus: bus as unknown as EventBus, log, idleMs: 50 }));
}

async function turn(world: TestOrchestrator, sessionId: string, text: string): Promise<string> {
  const sent = await world.sessions.sendTurn({ sessionId, text });
  await readEvents(world.sessions, sessionId, sent.turn?.afterSeq ?? 0n, endsTurn(sent.turn?.turnId));
  return sent.turn?.turnId ?? "";
}

async function facts(bus: FakeBus): Promise<{ turnId: string; change: TurnChange; seq: bigint; eventId: string }[]> {
  const turns = bus.published.filter(({ topic }) => topic === conversationTurns.name);
  const decoded = await Promise.all(turns.map((event) => codec.decode(conversationTurns, event)));
  return decoded.map(({ turnId, change, metadata }) => ({
    turnId,
    change,
    seq: metadata?.seq ?? 0n,
    eventId: metadata?.eventId ?? "",
  }));
}

test("each turn's facts reach the bus in order, numbered without a gap", async () => {
  const world = await startTestOrchestrator({ databaseUrl: database.url });
  worlds.push(world);
  const bus = new FakeBus();
  relay(world, bus);
  const sessionId = await newSession(world.sessions);
  const turnId = await turn(world, sessionId, "say hi");
  const failed = await turn(world, sessionId, "fail so it is");
  await expect.poll(() => bus.published.length).toBe(10);
  const { ACCEPTED, STARTED, SUCCEEDED, FAILED } = TurnChange;
  expect((await facts(bus)).map(({ turnId, change, seq }) => [turnId, change, seq])).toEqual([
    [turnId, ACCEPTED, 1n],
    [turnId, STARTED, 2n],
    [turnId, SUCCEEDED, 3n],
    [failed, ACCEPTED, 1n],
    [failed, STARTED, 2n],
    [failed, FAILED, 3n],
  ]);
  expect(new Set((await facts(bus)).map(({ eventId }) => eventId)).size).toBe(6);
  const runs = bus.published.filter(({ topic }) => topic === agentRuns.name);
  const changes = await Promise.all(runs.map((event) => codec.decode(agentRuns, event)));
  expect(changes.map(({ runId, change, reason }) => [runId, change, reason])).toEqual([
    [turnId, RunChange.STARTED, 0],
    [turnId, RunChange.SUCCEEDED, 0],
    [failed, RunChange.STARTED, 0],
    [failed, RunChange.FAILED, Reason.MODEL_FAILED],
  ]);
  expect(runs[0]?.key).toMatch(new RegExp(`^org_.*:${turnId}$`));
  expect(bus.published[0]?.key).toMatch(new RegExp(`^org_.*:${sessionId}$`));
  await expect.poll(() => world.orchestrator.engine.status.unrelayed).toBe(0);
});

test("the log of a writer that is gone is drained before its successor's", async () => {
  const first = await startTestOrchestrator({ databaseUrl: database.url });
  worlds.push(first);
  const sessionId = await newSession(first.sessions);
  const before = await turn(first, sessionId, "say one");
  await first.stop();
  const second = await startTestOrchestrator({ databaseUrl: database.url, previousWritersAreDead: true });
  worlds.push(second);
  const other = await newSession(second.sessions);
  const after = await turn(second, other, "say two");
  const bus = new FakeBus();
  bus.down = true;
  relay(second, bus);
  bus.down = false;
  await expect.poll(() => bus.published.length).toBe(10);
  expect((await facts(bus)).map(({ turnId }) => turnId)).toEqual([before, before, before, after, after, after]);
});
