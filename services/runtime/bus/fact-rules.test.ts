import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { RunChange, RunChangedSchema } from "@cadre/gen/cadre/events/v1/run_pb";
import {
  EventMetadataSchema,
  TurnChange,
  type TurnChanged,
  TurnChangedSchema,
} from "@cadre/gen/cadre/events/v1/turn_pb";
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import { MeterProvider } from "@opentelemetry/sdk-metrics";
import { sql } from "kysely";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import type { FailureReason } from "../errors/app-error.ts";
import { newId } from "../ids/id.ts";
import type { Database } from "../postgres/database.ts";
import { migrate } from "../postgres/migrator.ts";
import { openDatabase } from "../postgres/open-database.ts";
import { createEventCodec, type EventCodec } from "./envelope.ts";
import { createLocalSchemaIds } from "./schema-ids.ts";
import { agentRuns, conversationTurns, type Fact, type Topic } from "./topics.ts";

const log = pino({ level: "silent" });
const orgId = newId("org");
let server: TestDatabase;
let database: Database<Record<never, never>>;

beforeAll(async () => {
  server = await createTestDatabase();
  const initial = {
    name: "0001-initial",
    destructive: false,
    up: async (db: Parameters<Parameters<typeof migrate>[0]["migrations"][number]["up"]>[0]) => {
      await sql`create table outbox (position bigint generated always as identity primary key, topic text not null,
        key text not null, headers jsonb not null, value bytea not null)`.execute(db);
    },
    down: async (db: Parameters<Parameters<typeof migrate>[0]["migrations"][number]["down"]>[0]) => {
      await sql`drop table outbox`.execute(db);
    },
  };
  await migrate({ url: server.url, service: "sample", migrations: [initial], log });
  database = openDatabase({ url: server.url, service: "sample", log });
});
afterAll(async () => {
  await database.close();
  await server.drop();
});

/** What a service does that keeps an outbox: the event is made, and so checked, before it is stored. */
async function store<M extends Fact>(codec: EventCodec, topic: Topic<M>, fact: M): Promise<void> {
  const event = await codec.encode(topic, fact, { orgId });
  await sql`insert into outbox (topic, key, headers, value)
    values (${event.topic}, ${event.key}, ${JSON.stringify(event.headers)}, ${Buffer.from(event.value)})`.execute(
    database.engine,
  );
}

async function storedCount(): Promise<number> {
  const { rows } = await sql<{ count: bigint }>`select count(*) from outbox`.execute(database.engine);
  return Number(rows[0]?.count);
}

function metadata(given: MessageInitShape<typeof EventMetadataSchema> = {}) {
  const at = timestampFromMs(1_700_000_000_000);
  return create(EventMetadataSchema, { eventId: newId("evt"), seq: 1n, at, orgId, ...given });
}

function turn(given: MessageInitShape<typeof TurnChangedSchema> = {}): TurnChanged {
  return create(TurnChangedSchema, {
    metadata: metadata(),
    sessionId: newId("ses"),
    turnId: newId("run"),
    change: TurnChange.STARTED,
    ...given,
  });
}

interface Invalid {
  readonly kind: string;
  readonly reason: FailureReason;
  /** What the message names. */
  readonly names: string;
  readonly fact: TurnChanged;
  readonly topic?: Topic<TurnChanged>;
}

const undeclared = { ...conversationTurns, name: "conversation.gossip.v1" };
const run = create(RunChangedSchema, { metadata: metadata(), runId: newId("run"), change: RunChange.STARTED });

const invalid: readonly Invalid[] = [
  { kind: "no metadata", reason: "INVALID_ARGUMENT", names: "metadata", fact: create(TurnChangedSchema, {}) },
  {
    kind: "an event id of another kind",
    reason: "INVALID_ARGUMENT",
    names: "metadata.event_id",
    fact: turn({ metadata: metadata({ eventId: newId("run") }) }),
  },
  {
    kind: "no time",
    reason: "INVALID_ARGUMENT",
    names: "metadata.at",
    fact: turn({ metadata: create(EventMetadataSchema, { eventId: newId("evt"), orgId }) }),
  },
  {
    kind: "a trace id that is none",
    reason: "INVALID_ARGUMENT",
    names: "metadata.trace_id",
    fact: turn({ metadata: metadata({ traceId: "0".repeat(33) }) }),
  },
  {
    kind: "a session id of another kind",
    reason: "INVALID_ARGUMENT",
    names: "session_id",
    fact: turn({ sessionId: newId("run") }),
  },
  { kind: "a change that is unspecified", reason: "INVALID_ARGUMENT", names: "change", fact: turn({ change: 0 }) },
  {
    kind: "a change that nobody defined",
    reason: "INVALID_ARGUMENT",
    names: "change",
    fact: turn({ change: 99 as TurnChange }),
  },
  {
    kind: "an org other than its state's",
    reason: "TENANT_MISMATCH",
    names: "metadata.org_id",
    fact: turn({ metadata: metadata({ orgId: newId("org") }) }),
  },
  {
    kind: "a topic that nobody declared",
    reason: "TOPIC_NOT_FOUND",
    names: undeclared.name,
    fact: turn(),
    topic: undeclared,
  },
  {
    kind: "another topic's message",
    reason: "SCHEMA_MISMATCH",
    names: "cadre.events.v1.RunChanged",
    fact: run as unknown as TurnChanged,
  },
  {
    kind: "more bytes than a broker takes",
    reason: "MESSAGE_TOO_LARGE",
    names: conversationTurns.name,
    fact: Object.assign(turn(), { $unknown: [{ no: 999, wireType: 2, data: new Uint8Array(1_100_000) }] }),
  },
];

test.each(invalid)("$kind: refused as $reason, counted, and not in the outbox", async (given) => {
  const exporter = new PrometheusExporter({ preventServerStart: true });
  const meter = new MeterProvider({ readers: [exporter] }).getMeter("t");
  const codec = createEventCodec(createLocalSchemaIds(), { meter });
  const { reason, names, fact, topic = conversationTurns } = given;
  const before = await storedCount();
  const failure = await store(codec, topic, fact).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(failure).toMatchObject({ name: "AppError", reason, message: expect.stringContaining(names) });
  expect(await storedCount()).toBe(before);
  const text = new PrometheusSerializer().serialize((await exporter.collect()).resourceMetrics);
  expect(text).toMatch(
    new RegExp(`cadre_events_refused_total\\{[^}]*topic="${topic.name}"[^}]*reason="${reason}"[^}]*\\} 1`),
  );
});

test("a message that is not registered for its topic: refused", async () => {
  const codec = createEventCodec(createLocalSchemaIds([agentRuns]));
  const before = await storedCount();
  await expect(store(codec, conversationTurns, turn())).rejects.toMatchObject({ reason: "SCHEMA_NOT_REGISTERED" });
  expect(await storedCount()).toBe(before);
});

test("what holds is stored", async () => {
  const codec = createEventCodec(createLocalSchemaIds());
  const before = await storedCount();
  await store(codec, conversationTurns, turn());
  await store(codec, agentRuns, run);
  expect(await storedCount()).toBe(before + 2);
});
