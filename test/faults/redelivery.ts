import { join } from "node:path";
import { sql } from "kysely";
import pino from "pino";
import { eventIdOf } from "../../services/runtime/bus/envelope.ts";
import type { BusEvent } from "../../services/runtime/bus/event-bus.ts";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { migrate } from "../../services/runtime/postgres/migrator.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { type Child, startChild } from "../support/child.ts";
import { type EffectSchema, effectMigrations } from "../support/effect-schema.ts";
import { reach } from "../support/fault-driver.ts";
import { createTestDatabase } from "../support/postgres.ts";
import { openTestBus } from "../support/test-bus.ts";
import { turnEvent } from "../support/turn-facts.ts";

export interface RedeliveryOptions {
  readonly events: number;
  /** How often each is delivered. From the second time on neighbours of a key come in each other's place. */
  readonly deliveries: number;
  /** Whether another consumer comes and goes meanwhile. */
  readonly guest?: boolean;
  /** The bus is in PostgreSQL unless given. */
  readonly kafka?: KafkaConnection;
  /** Of the consumer's processes, to take a protection away. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** What came of it. */
export interface RedeliveryVerdict {
  /** Rows in the table of effects. */
  readonly effects: number;
  /** Events that had one effect or more. */
  readonly distinct: number;
  /** How many effects there were when the consumer was killed. */
  readonly whenKilled: number;
}

const keys = 50;
const program = join(import.meta.dirname, "../support/consumer-process.ts");

/** Publishes each event several times, and has the consumer killed and started again in the middle of it. */
export async function redeliver(options: RedeliveryOptions): Promise<RedeliveryVerdict> {
  const { events: count, deliveries, environment } = options;
  const kafka = options.kafka === undefined ? undefined : JSON.stringify(options.kafka);
  const log = pino({ level: "silent" });
  const server = await createTestDatabase();
  await migrate({ url: server.url, service: "sample", migrations: effectMigrations, log });
  const database = openDatabase<EffectSchema>({ url: server.url, service: "sample", log });
  const bus = await openTestBus(server.url, kafka, log);
  const orgId = newId("org");
  const sessions = Array.from({ length: keys }, () => newId("ses"));
  const makeEvents = (from: number, to: number) =>
    Promise.all(
      Array.from({ length: to - from }, (_, index) => turnEvent(orgId, sessions[index % keys] ?? "", from + index)),
    );
  const events = await makeEvents(0, count);

  const figures = async () => {
    const { rows } = await sql<{ effects: bigint; distinct: bigint }>`
      select count(*) as effects, count(distinct event_id) as distinct from effect`.execute(database.engine);
    return { effects: Number(rows[0]?.effects), distinct: Number(rows[0]?.distinct) };
  };
  async function startConsumer(): Promise<Child> {
    const consumer = startChild(program, [server.url, ...(kafka === undefined ? [] : [kafka])], environment);
    await consumer.line();
    return consumer;
  }
  async function finish(consumer: Child): Promise<void> {
    const code = await consumer.finish();
    if (code !== 0) throw new Error(`the consumer ended with ${code}: ${consumer.errors()}`);
  }

  try {
    // The first time all of them, then each as often again.
    await bus.publish(events);
    const first = await startConsumer();
    await reach("a third of the effects", async () => (await figures()).effects >= count / 3, { everyMs: 5 });
    await first.crash();
    const { effects: whenKilled } = await figures();
    const consumer = await startConsumer();
    const guest = options.guest === true ? await startConsumer() : undefined;
    for (let again = 1; again < deliveries; again++) {
      await bus.publish(swapped(events));
      if (guest !== undefined && again === Math.ceil(deliveries / 2)) await finish(guest);
    }
    // The last of each key: what has not come before it never will.
    const last = await makeEvents(count, count + keys);
    await bus.publish(last);
    const ids = last.map(eventIdOf);
    await reach("the end of the topic", async () => {
      const { rows } = await sql<{ missing: number }>`
        select ${keys} - count(distinct event_id)::int as missing from effect
         where event_id = any(${ids})`.execute(database.engine);
      return rows[0]?.missing === 0;
    });
    await finish(consumer);
    const { effects, distinct } = await figures();
    const atTheEnd = await sql<{ count: number }>`
      select count(*)::int as count from effect where event_id = any(${ids})`.execute(database.engine);
    return { effects: effects - (atTheEnd.rows[0]?.count ?? 0), distinct: distinct - keys, whenKilled };
  } finally {
    await bus.close();
    await database.close();
    await server.drop();
  }
}

/** Neighbours of a key change places: keys come in turn, so they are `keys` apart. */
function swapped(events: readonly BusEvent[]): readonly BusEvent[] {
  return events.map((event, index) => {
    const isFirst = Math.floor(index / keys) % 2 === 0;
    return events[isFirst ? index + keys : index - keys] ?? event;
  });
}
