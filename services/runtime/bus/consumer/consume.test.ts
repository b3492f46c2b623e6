import { create } from "@bufbuild/protobuf";
import type { TurnChanged } from "@cadre/gen/cadre/events/v1/turn_pb";
import { type FieldUseService, ReportFieldReadsResponseSchema } from "@cadre/gen/cadre/registry/v1/field_use_pb";
import type { Client } from "@connectrpc/connect";
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import { MeterProvider } from "@opentelemetry/sdk-metrics";
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import { sql, type Transaction } from "kysely";
import pino from "pino";
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test } from "vitest";
import { type Collected, collectEvents } from "../../../../test/support/collect-events.ts";
import { type EffectSchema, effectMigrations } from "../../../../test/support/effect-schema.ts";
import { createTestDatabase, type TestDatabase } from "../../../../test/support/postgres.ts";
import { codec, turnEvent } from "../../../../test/support/turn-facts.ts";
import { AppError } from "../../errors/app-error.ts";
import { newId, toUuid } from "../../ids/id.ts";
import type { Database } from "../../postgres/database.ts";
import { migrate } from "../../postgres/migrator.ts";
import { openDatabase } from "../../postgres/open-database.ts";
import { fromDeadLetterEvent, toRequeuedEvent } from "../dead-letter-event.ts";
import { envelopeHeader, eventIdOf } from "../envelope.ts";
import type { BusEvent, EventBus, Subscription } from "../event-bus.ts";
import { openPostgresEventBus } from "../postgres-event-bus.ts";
import { conversationTurns, deadLetterTopicOf } from "../topics.ts";
import type { FactHandler } from "./bounded-handler.ts";
import { consume } from "./consume.ts";
import { createFieldReads, type FieldReads } from "./field-reads.ts";
import type { DecodedEvent } from "./handler.ts";

const log = pino({ level: "silent" });
const topic = conversationTurns.name;
const traceparent = `00-${"4b".repeat(16)}-${"00f0".repeat(4)}-01`;
const orgId = newId("org");
const spans = new InMemorySpanExporter();
const tracer = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter: spans })] }).getTracer("t");
const exporter = new PrometheusExporter({ preventServerStart: true });
const meter = new MeterProvider({ readers: [exporter] }).getMeter("t");
let server: TestDatabase;
let database: Database<EffectSchema>;
let bus: EventBus;
let letters: Collected;
const subscriptions: Subscription[] = [];
/** Each test has a group and a session, and so a partition's order, of its own. */
let group = "";
let sessionId = "";
let groups = 0;

beforeAll(async () => {
  server = await createTestDatabase();
  await migrate({ url: server.url, service: "sample", migrations: effectMigrations, log });
  database = openDatabase<EffectSchema>({ url: server.url, service: "sample", log });
  bus = await openPostgresEventBus({ url: server.url, log });
  letters = collectEvents(bus, deadLetterTopicOf(topic), "test.letters");
});
afterEach(async () => {
  for (const subscription of subscriptions.splice(0)) await subscription.stop();
});
afterAll(async () => {
  await bus.close();
  await database.close();
  await server.drop();
});

type Handle = FactHandler<TurnChanged, EffectSchema>;

function start(
  handle: Handle,
  given: { readonly attemptMs?: number; readonly bus?: EventBus; readonly fieldReads?: FieldReads } = {},
): void {
  groups += 1;
  group = `test.${groups}`;
  sessionId = newId("ses");
  const own: Handle = async (decoded, transaction, signal) => {
    // The topic holds other tests' events as well.
    if (decoded.fact.sessionId === sessionId) await handle(decoded, transaction, signal);
  };
  subscriptions.push(
    consume({ bus, codec, topic: conversationTurns, group, database, handle: own, log, tracer, meter, ...given }),
  );
}

async function note({ fact, eventId }: DecodedEvent<TurnChanged>, transaction: Transaction<EffectSchema>) {
  const row = { org_id: toUuid("org", orgId), event_id: eventId, seq: Number(fact.metadata?.seq) };
  await transaction.insertInto("effect").values(row).execute();
}

async function effects(events: readonly BusEvent[]): Promise<readonly number[]> {
  const ids = events.map(eventIdOf);
  const rows = await database.engine.selectFrom("effect").select("seq").where("event_id", "in", ids).execute();
  return rows.map(({ seq }) => seq).sort((a, b) => a - b);
}

async function publish(count: number): Promise<readonly BusEvent[]> {
  const events = await Promise.all(
    Array.from({ length: count }, (_, index) => turnEvent(orgId, sessionId, index + 1, traceparent)),
  );
  await bus.publish(events);
  return events;
}

function lettersOf(events: readonly BusEvent[]) {
  const values = new Set(events.map(({ value }) => Buffer.from(value).toString("hex")));
  return letters.events.map(fromDeadLetterEvent).filter((letter) => {
    return letter.failure.group === group && values.has(Buffer.from(letter.event.value).toString("hex"));
  });
}

test("an event has one effect, however often it comes; its span is linked to who stated it", async () => {
  const seen: number[] = [];
  start(async (decoded, transaction) => {
    seen.push(Number(decoded.fact.metadata?.seq));
    await note(decoded, transaction);
  });
  const events = await publish(3);
  await bus.publish([...events, ...events]);
  await expect.poll(() => outcomes("repeated")).toBe(6);
  expect(seen).toEqual([1, 2, 3]);
  expect(await effects(events)).toEqual([1, 2, 3]);
  const span = spans
    .getFinishedSpans()
    .find(({ attributes }) => attributes["messaging.message.id"] === idOf(events[0]));
  expect(span).toMatchObject({ name: `process ${topic}`, parentSpanContext: undefined });
  expect(span?.links).toMatchObject([{ context: { traceId: "4b".repeat(16), spanId: "00f0".repeat(4) } }]);
  expect(span?.attributes["cadre.outcome"]).toBe("handled");
});

test("what waits is handled in one transaction, and what comes again in it is known", async () => {
  start(note);
  const events = await publish(60);
  await bus.publish(events);
  await expect.poll(() => outcomes("repeated")).toBeGreaterThanOrEqual(60);
  expect(await effects(events)).toHaveLength(60);
  const ids = events.map(eventIdOf);
  const { rows } = await sql<{ transactions: bigint }>`
    select count(distinct xmin::text) as transactions from effect where event_id = any(${ids})`.execute(
    database.engine,
  );
  const batch = spans.getFinishedSpans().findLast(({ name }) => name === `process batch ${topic}`);
  expect(batch?.links.length).toBe(batch?.attributes["messaging.batch.message_count"]);
  // One, unless a slow machine ran out of a batch's time.
  expect(Number(rows[0]?.transactions)).toBeLessThan(10);
});

test("a handler that always throws has three attempts, then the event is put aside as it came", async () => {
  const attempts: number[] = [];
  start(async (decoded, transaction) => {
    const seq = Number(decoded.fact.metadata?.seq);
    attempts.push(seq);
    await note(decoded, transaction);
    if (seq === 2) throw new AppError("TOOL_FAILED", "no such thing; key sk-abcdefghijklmnopqrst");
  });
  const events = await publish(3);
  await expect.poll(() => effects(events)).toEqual([1, 3]);
  // Once together, where the second fails and takes the first along; then each by itself.
  expect(attempts).toEqual([1, 2, 1, 2, 2, 2, 3]);
  await expect.poll(() => lettersOf(events)).toHaveLength(1);
  const [letter] = lettersOf(events);
  const { topic: from, key, headers } = events[1] ?? { topic: "", key: "", headers: {} };
  expect(letter?.event).toMatchObject({ topic: from, key, headers });
  expect(letter?.failure).toMatchObject({ group, attempts: 3, reason: "TOOL_FAILED" });
  expect(letter?.failure.message).toBe("no such thing; key [redacted]");
});

test("a handler that hangs is cut; what it does afterwards is refused, and its partition goes on", async () => {
  const late: Promise<unknown>[] = [];
  start(
    async (decoded, transaction, signal) => {
      if (decoded.fact.metadata?.seq === 1n) {
        const { promise: over, resolve } = Promise.withResolvers<void>();
        signal.addEventListener("abort", () => resolve());
        // It does not heed, and goes on once it was cut.
        late.push(over.then(() => note(decoded, transaction)).catch((thrown: unknown) => thrown));
        await new Promise(() => undefined);
      }
      await note(decoded, transaction);
    },
    { attemptMs: 150 },
  );
  const events = await publish(2);
  await expect.poll(() => effects(events)).toEqual([2]);
  await expect.poll(() => lettersOf(events)).toHaveLength(1);
  expect(lettersOf(events)[0]?.failure).toMatchObject({ attempts: 3, reason: "DEADLINE_EXCEEDED" });
  // In the batch, and in three attempts.
  const refused = await Promise.all(late);
  expect(refused).toHaveLength(4);
  for (const thrown of refused) expect(thrown).toBeInstanceOf(Error);
  expect(await effects(events)).toEqual([2]);
});

test("a handler that hangs in a statement is cut, too, and takes nobody along", async () => {
  start(
    async (decoded, transaction) => {
      await note(decoded, transaction);
      if (decoded.fact.metadata?.seq === 2n) await sql`select pg_sleep(30)`.execute(transaction);
    },
    { attemptMs: 200 },
  );
  const startedMs = performance.now();
  const events = await publish(20);
  await expect.poll(() => lettersOf(events)).toHaveLength(1);
  // Its statement would take 30 seconds.
  expect(performance.now() - startedMs).toBeLessThan(20_000);
  expect(lettersOf(events)[0]?.failure).toMatchObject({ attempts: 3, reason: "DEADLINE_EXCEEDED" });
  const others = Array.from({ length: 20 }, (_, index) => index + 1).filter((seq) => seq !== 2);
  await expect.poll(() => effects(events)).toEqual(others);
  expect(lettersOf(events)).toHaveLength(1);
});

test("what cannot be decoded gets one attempt and never meets the handler", async () => {
  let calls = 0;
  start(async () => {
    calls += 1;
  });
  const good = await turnEvent(orgId, sessionId, 1);
  const garbage = { ...good, value: Buffer.from("b3f1a09c77e2", "hex") };
  await bus.publish([garbage]);
  await expect.poll(() => lettersOf([garbage])).toHaveLength(1);
  expect(lettersOf([garbage])[0]?.failure).toMatchObject({ attempts: 1, reason: "MALFORMED_MESSAGE" });
  expect(calls).toBe(0);
});

test("what the handler cannot reach is not the event's fault: it comes again, and is no dead letter", async () => {
  let isDown = true;
  let attempts = 0;
  start(async (decoded, transaction) => {
    attempts += 1;
    if (isDown) throw new AppError("UNAVAILABLE", "the peer does not answer");
    await note(decoded, transaction);
  });
  const events = await publish(1);
  await expect.poll(() => attempts).toBeGreaterThan(3);
  isDown = false;
  await expect.poll(() => effects(events)).toEqual([1]);
  expect(lettersOf(events)).toEqual([]);
});

test("an event that cannot be put aside is refused, and comes again until it can", async () => {
  let refused = 0;
  const weak: EventBus = {
    subscribe: (options) => bus.subscribe(options),
    close: async () => undefined,
    publish: async (events) => {
      // The topic holds other tests' poison as well.
      if (events.some(({ key }) => key.endsWith(sessionId))) refused += 1;
      if (refused < 3) throw new AppError("UNAVAILABLE", "the bus is away");
      await bus.publish(events);
    },
  };
  start(
    async () => {
      throw new Error("always");
    },
    { bus: weak },
  );
  const events = await publish(1);
  await expect.poll(() => lettersOf(events)).toHaveLength(1);
  expect(refused).toBe(3);
});

test("a database that does not answer is not the event's fault", async () => {
  start(note, { attemptMs: 150 });
  const blocker = database.engine.transaction().execute(async (transaction) => {
    await sql`lock table handled_event in access exclusive mode`.execute(transaction);
    const events = await publish(2);
    // Longer than all attempts of an event take.
    await expect.poll(() => outcomes("refused")).toBeGreaterThan(0);
    return events;
  });
  const events = await blocker;
  await expect.poll(() => effects(events)).toEqual([1, 2]);
  expect(lettersOf(events)).toEqual([]);
});

test("a requeued event is for the group that had failed, and for no other", async () => {
  const seen: string[] = [];
  start(async ({ event }) => {
    seen.push(event.headers[envelopeHeader.eventId] ?? "");
  });
  const [mine, others] = [await turnEvent(orgId, sessionId, 1), await turnEvent(orgId, sessionId, 2)];
  await bus.publish([toRequeuedEvent(others, "another.group"), toRequeuedEvent(mine, group)]);
  await expect.poll(() => seen).toEqual([eventIdOf(mine)]);
  await expect.poll(() => outcomes("not-ours")).toBe(1);
});

test("what the handler reads of an event is told to the registry, and nothing else", async () => {
  const told = new Set<string>();
  const registry: Pick<Client<typeof FieldUseService>, "reportFieldReads"> = {
    async reportFieldReads({ reads = [] }) {
      for (const read of reads) told.add(`${read.group} ${read.typeName} ${read.field}`);
      return create(ReportFieldReadsResponseSchema);
    },
  };
  // By this clock each event is the first in a minute, and each report is due.
  let nowMs = 0;
  const fieldReads = createFieldReads({ registry, log, firstMs: 0, now: () => (nowMs += 60_000) });
  onTestFinished(() => fieldReads.stop());
  start(note, { fieldReads });
  const events = await publish(3);
  await expect.poll(() => effects(events)).toEqual([1, 2, 3]);
  const expected = ["TurnChanged ", "TurnChanged session_id", "TurnChanged metadata", "EventMetadata seq"];
  await expect.poll(() => [...told].sort()).toEqual(expected.map((read) => `${group} cadre.events.v1.${read}`).sort());
});

/** How many events of the current group had that outcome. */
async function outcomes(outcome: string): Promise<number> {
  const text = new PrometheusSerializer().serialize((await exporter.collect()).resourceMetrics);
  const line = new RegExp(
    `cadre_consumer_events_total\\{[^}]*group="${group}"[^}]*outcome="${outcome}"[^}]*\\} (\\d+)`,
  );
  return Number(line.exec(text)?.[1] ?? 0);
}

function idOf(event: BusEvent | undefined): string {
  return event === undefined ? "" : eventIdOf(event);
}
