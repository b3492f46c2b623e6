import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type Generated, sql } from "kysely";
import pino from "pino";
import { eventIdOf } from "../../services/runtime/bus/envelope.ts";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import type { Database } from "../../services/runtime/postgres/database.ts";
import { type Migration, migrate } from "../../services/runtime/postgres/migrator.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { type Child, startChild } from "./child.ts";
import { type EffectSchema, effectMigrations } from "./effect-schema.ts";
import { reach } from "./fault-driver.ts";
import { turnEvent } from "./turn-facts.ts";

/** The tables of a service `sample`: an outbox, and the effects of what was in it. */
export interface OutboxSchema extends EffectSchema {
  entry: {
    position: bigint;
    event_id: string;
    key: string;
    number: number;
    headers: Record<string, string>;
    value: Uint8Array;
    accepted_at: Generated<Date>;
  };
  relayed: { position: bigint };
  effect: EffectSchema["effect"] & { id: Generated<bigint>; made_at: Generated<Date> };
}

export interface BusWorldOptions {
  /** Where outbox and effects are; the bus, too, unless Kafka is named. */
  readonly databaseUrl: string;
  readonly kafka?: KafkaConnection;
  readonly keys: number;
  /** Of the relays, and of the consumers: to take a protection away. */
  readonly relayEnvironment?: Readonly<Record<string, string>>;
  readonly consumerEnvironment?: Readonly<Record<string, string>>;
}

/** What became of the accepted events. */
export interface BusVerdict {
  readonly accepted: number;
  /** Without an effect. */
  readonly lost: number;
  /** Effects of events that nobody accepted. */
  readonly unexpected: number;
  /** Effects of events that had one before. */
  readonly doubled: number;
  /** Events whose first effect came after that of a later one of their key. */
  readonly overtaken: number;
  /** The longest time from an event's acceptance to its first effect, in milliseconds. */
  readonly longestMs: number;
}

/** An outbox whose events cross the bus, and have an effect. */
export interface BusWorld {
  readonly database: Database<OutboxSchema>;
  /** Accepts so many events, the keys in turn. They are accepted when this answers, over restarts of the database. */
  accept(count: number): Promise<void>;
  /** Starts a relay, or a consumer, as a process of its own. Resolves when it is at work. */
  startRelay(): Promise<Child>;
  startConsumer(): Promise<Child>;
  /** How many events have had their effect. */
  effects(): Promise<number>;
  /** Accepts one more event of each key, and waits for its effect: what has not come before it never will. */
  drain(): Promise<void>;
  judge(): Promise<BusVerdict>;
  /** What the processes wrote to standard error. */
  errors(): string;
  /** Ends the processes. */
  close(): Promise<void>;
}

const relayProgram = join(import.meta.dirname, "relay-process.ts");
const consumerProgram = join(import.meta.dirname, "consumer-process.ts");
const log = pino({ level: "silent" });

const outbox: Migration = {
  name: "0002-outbox",
  destructive: false,
  up: async (db) => {
    await sql`create table entry (position bigint primary key, event_id text not null, key text not null,
      number int not null, headers jsonb not null, value bytea not null,
      accepted_at timestamptz not null default clock_timestamp())`.execute(db);
    await sql`create table relayed (position bigint not null)`.execute(db);
    await sql`insert into relayed values (0)`.execute(db);
    await sql`alter table effect add id bigint generated always as identity,
      add made_at timestamptz not null default clock_timestamp()`.execute(db);
  },
  down: async (db) => {
    await sql`alter table effect drop column id, drop column made_at`.execute(db);
    await sql`drop table relayed, entry`.execute(db);
  },
};

/** Makes the tables in an empty database. Starts nothing yet. */
export async function openBusWorld(options: BusWorldOptions): Promise<BusWorld> {
  const { databaseUrl: url, kafka, keys } = options;
  await migrate({ url, service: "sample", migrations: [...effectMigrations, outbox], log });
  const database = openDatabase<OutboxSchema>({ url, service: "sample", log });
  const orgId = newId("org");
  const sessions = Array.from({ length: keys }, () => newId("ses"));
  const children = new Set<Child>();
  let accepted = 0;

  async function start(program: string, environment: Readonly<Record<string, string>> = {}): Promise<Child> {
    const child = startChild(program, [url, ...(kafka === undefined ? [] : [JSON.stringify(kafka)])], environment);
    children.add(child);
    await child.line();
    return child;
  }

  async function accept(count: number): Promise<void> {
    if (count === 0) return;
    const indexes = Array.from({ length: count }, (_, index) => accepted + index);
    accepted += count;
    const entries = await Promise.all(
      indexes.map(async (index) => {
        const number = Math.floor(index / keys);
        const event = await turnEvent(orgId, sessions[index % keys] ?? "", number);
        const { key, headers, value } = event;
        return { position: BigInt(index + 1), event_id: eventIdOf(event), key, number, headers: { ...headers }, value };
      }),
    );
    // Once more what may have been stored already.
    const insert = database.engine
      .insertInto("entry")
      .values(entries)
      .onConflict((on) => on.doNothing());
    await overRestarts(() => insert.execute());
  }

  async function ask<T>(query: { execute(engine: Database<OutboxSchema>["engine"]): Promise<{ rows: T[] }> }) {
    return (await overRestarts(() => query.execute(database.engine))).rows[0];
  }

  return {
    database,
    accept,
    startRelay: () => start(relayProgram, options.relayEnvironment),
    startConsumer: () => start(consumerProgram, options.consumerEnvironment),
    async effects() {
      const row = await ask(sql<{ count: number }>`select count(distinct event_id)::int as count from effect`);
      return row?.count ?? 0;
    },
    async drain() {
      const from = accepted;
      await accept(keys);
      const waiting = sql<{ count: number }>`select count(*)::int as count from entry
        where position > ${from} and event_id not in (select event_id from effect)`;
      const isDrained = async () => (await ask(waiting))?.count === 0;
      await reach("the effect of each key's last event", isDrained, { timeoutMs: 120_000, everyMs: 100 });
    },
    judge: () => judge(database),
    errors: () => [...children].map((child) => child.errors()).join(""),
    async close() {
      for (const child of children) await child.crash();
      await database.close();
    },
  };
}

async function judge({ engine }: Database<OutboxSchema>): Promise<BusVerdict> {
  const entries = await engine.selectFrom("entry").select(["event_id", "key", "number", "accepted_at"]).execute();
  const effects = await engine.selectFrom("effect").select(["event_id", "made_at"]).orderBy("id").execute();
  const entryOf = new Map(entries.map((entry) => [entry.event_id, entry]));
  const seen = new Set<string>();
  const highest = new Map<string, number>();
  let [unexpected, doubled, overtaken, longestMs] = [0, 0, 0, 0];
  for (const { event_id: id, made_at: madeAt } of effects) {
    const entry = entryOf.get(id);
    if (entry === undefined) {
      unexpected += 1;
    } else if (seen.has(id)) {
      doubled += 1;
    } else {
      seen.add(id);
      const before = highest.get(entry.key) ?? 0;
      if (entry.number < before) overtaken += 1;
      highest.set(entry.key, Math.max(entry.number, before));
      longestMs = Math.max(longestMs, madeAt.getTime() - entry.accepted_at.getTime());
    }
  }
  return { accepted: entries.length, lost: entries.length - seen.size, unexpected, doubled, overtaken, longestMs };
}

/** Asks the database, which may be away for a minute. */
async function overRestarts<T>(ask: () => Promise<T>): Promise<T> {
  const untilMs = performance.now() + 60_000;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (performance.now() > untilMs) throw error;
      await delay(50);
    }
  }
}
