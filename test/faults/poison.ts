import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { RunChange, RunChangedSchema } from "@cadre/gen/cadre/events/v1/run_pb";
import { type Cadre, createCadre, type DeadLetter } from "@cadre/sdk";
import { metrics, trace } from "@opentelemetry/api";
import pg from "pg";
import pino from "pino";
import { consume } from "../../services/runtime/bus/consumer/consume.ts";
import { eventIdOf } from "../../services/runtime/bus/envelope.ts";
import type { BusEvent, EventBus } from "../../services/runtime/bus/event-bus.ts";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { agentRuns, conversationTurns } from "../../services/runtime/bus/topics.ts";
import { newId, toUuid } from "../../services/runtime/ids/id.ts";
import { migrate } from "../../services/runtime/postgres/migrator.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { type EffectSchema, effectMigrations } from "../support/effect-schema.ts";
import { reach } from "../support/fault-driver.ts";
import { createTestDatabase } from "../support/postgres.ts";
import { codec, turnEvent, turnFact } from "../support/turn-facts.ts";

/** What is wrong with an event: its bytes, or what its handler makes of it. */
const kinds = ["random bytes", "magic byte", "unknown id", "other subject", "throws", "hangs"] as const;
type Poison = (typeof kinds)[number];

/** A Cadre, and a consumer in this process that follows its bus. */
export interface PoisonWorld {
  readonly server: RunningCadre;
  readonly cadre: Cadre;
  /** What was published, with what is wrong with it. */
  readonly poisoned: ReadonlyMap<string, Poison>;
  /** The longest that a partition with events went without one that was acknowledged, in milliseconds. */
  longestMs(): number;
  /** How many effects there are, and how many events have one. */
  effects(): Promise<{ readonly total: number; readonly distinct: number }>;
  /** The kept letters, all of them. */
  letters(): Promise<readonly DeadLetter[]>;
  /** How many dead letters differ from what was published: in key, headers or value. */
  changed(): Promise<number>;
  /** From now on, nothing throws or hangs. */
  heal(): void;
  stop(): Promise<void>;
}

const keys = 200;
const group = "sample.effects";

/** Publishes events of which every hundredth is poison of one kind after the other, and consumes them. */
export async function startPoisonWorld(count: number): Promise<PoisonWorld> {
  const log = pino({ level: "silent" });
  const database = await createTestDatabase();
  const server = await startCadre({ settings: { CADRE_DATABASE_URL: database.url } });
  const cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const { principal } = await cadre.principal();
  const { events, poisoned } = await makeEvents(principal.orgId, count);

  await migrate({ url: database.url, service: "sample", migrations: effectMigrations, log });
  const sample = openDatabase<EffectSchema>({ url: database.url, service: "sample", log });
  const admin = new pg.Client(database.url);
  await admin.connect();
  const bus = await openPostgresEventBus({ url: database.url, log });
  const held = timed(bus);
  let isHealed = false;
  const consumer = consume({
    bus: held.bus,
    codec,
    topic: conversationTurns,
    group,
    database: sample,
    handle: async ({ fact, eventId, orgId }, transaction) => {
      const row = { org_id: toUuid("org", orgId), event_id: eventId, seq: Number(fact.metadata?.seq) };
      await transaction.insertInto("effect").values(row).execute();
      const poison = isHealed ? undefined : poisoned.get(eventId);
      if (poison === "throws") throw new Error("always");
      if (poison === "hangs") await new Promise(() => undefined);
    },
    log,
    tracer: trace.getTracer("test"),
    meter: metrics.getMeter("test"),
  });
  for (let start = 0; start < events.length; start += 500) await bus.publish(events.slice(start, start + 500));

  return {
    server,
    cadre,
    poisoned,
    longestMs: held.longestMs,
    async effects() {
      const { rows } = await admin.query<{ total: string; distinct: string }>(
        "select count(*) as total, count(distinct event_id) as distinct from sample.effect",
      );
      return { total: Number(rows[0]?.total), distinct: Number(rows[0]?.distinct) };
    },
    letters: () => Array.fromAsync(cadre.deadLetters.list({ pageSize: 20, group, state: "kept" })),
    async changed() {
      const { rows } = await admin.query<{ key: Buffer; headers: Buffer; value: Buffer }>(
        "select key, headers, value from events.dead_letter",
      );
      const published = new Set(events.map(({ key, headers, value }) => form(key, headers, value)));
      return rows.filter(
        ({ key, headers, value }) =>
          !published.has(form(key.toString(), JSON.parse(headers.toString()) as BusEvent["headers"], value)),
      ).length;
    },
    heal() {
      isHealed = true;
    },
    async stop() {
      await consumer.stop();
      await bus.close();
      await Promise.all([sample.close(), admin.end()]);
      await server.dispose();
      await database.drop();
    },
  };
}

/** Waits until all that can be handled was, and all else was put aside. */
export async function settle(world: PoisonWorld, count: number): Promise<void> {
  const { size } = world.poisoned;
  await reach("every event handled", async () => (await world.effects()).distinct === count - size, { everyMs: 100 });
  await reach("every poison kept", async () => (await world.letters()).length === size, { everyMs: 200 });
}

async function makeEvents(orgId: string, count: number) {
  const sessions = Array.from({ length: keys }, () => newId("ses"));
  const poisoned = new Map<string, Poison>();
  const events: BusEvent[] = [];
  for (let index = 0; index < count; index++) {
    const sessionId = sessions[index % keys] ?? "";
    const event = await turnEvent(orgId, sessionId, index);
    // Every hundredth, and not always of the same keys.
    const poison = index % 100 === 37 ? kinds[Math.floor(index / 100) % kinds.length] : undefined;
    if (poison === undefined) {
      events.push(event);
    } else {
      poisoned.set(eventIdOf(event), poison);
      events.push({ ...event, value: await valueOf(poison, event, orgId, sessionId) });
    }
  }
  return { events, poisoned };
}

async function valueOf(poison: Poison, { value }: BusEvent, orgId: string, sessionId: string): Promise<Uint8Array> {
  switch (poison) {
    case "random bytes":
      return Buffer.concat([Buffer.of(0xff), randomBytes(79)]);
    case "magic byte":
      return Buffer.concat([Buffer.of(1), value.subarray(1)]);
    case "unknown id":
      return Buffer.concat([Buffer.of(0, 0x7f, 1, 2, 3), value.subarray(5)]);
    case "other subject": {
      const { metadata } = turnFact(orgId, sessionId, 1);
      const run = create(RunChangedSchema, { metadata, runId: newId("run"), change: RunChange.STARTED });
      return (await codec.encode(agentRuns, run, { orgId })).value;
    }
    case "throws":
    case "hangs":
      return value;
  }
}

/** A bus that measures how long a partition that has events goes without one that is acknowledged. */
function timed(bus: EventBus): { readonly bus: EventBus; readonly longestMs: () => number } {
  let longestMs = 0;
  const lastMs = new Map<number, number>();
  const subscribe: EventBus["subscribe"] = ({ prepare, handle, ...options }) =>
    bus.subscribe({
      ...options,
      prepare: async (events, signal) => {
        // It begins anew, with all that has come meanwhile.
        for (const { partition } of events.slice(0, 1)) lastMs.set(partition, performance.now());
        await prepare?.(events, signal);
      },
      handle: async (event, signal) => {
        await handle(event, signal);
        const nowMs = performance.now();
        longestMs = Math.max(longestMs, nowMs - (lastMs.get(event.partition) ?? nowMs));
        lastMs.set(event.partition, nowMs);
      },
    });
  return {
    bus: { subscribe, publish: (events) => bus.publish(events), close: () => bus.close() },
    longestMs: () => longestMs,
  };
}

function form(key: string, headers: BusEvent["headers"], value: Uint8Array): string {
  const sorted = Object.entries(headers).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([key, sorted, Buffer.from(value).toString("hex")]);
}
