import { join } from "node:path";
import { sql } from "kysely";
import pino from "pino";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { conversationTurns } from "../../services/runtime/bus/topics.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { migrate } from "../../services/runtime/postgres/migrator.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { startChild } from "../support/child.ts";
import { type EffectSchema, effectMigrations } from "../support/effect-schema.ts";
import { reach } from "../support/fault-driver.ts";
import { createTestDatabase } from "../support/postgres.ts";
import { turnEvent } from "../support/turn-facts.ts";

export interface RedeliveryOptions {
  readonly events: number;
  /** How often each is delivered. */
  readonly deliveries: number;
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
  const log = pino({ level: "silent" });
  const server = await createTestDatabase();
  await migrate({ url: server.url, service: "sample", migrations: effectMigrations, log });
  const database = openDatabase<EffectSchema>({ url: server.url, service: "sample", log });
  const bus = await openPostgresEventBus({ url: server.url, log });
  const orgId = newId("org");
  const sessions = Array.from({ length: keys }, () => newId("ses"));
  const events = await Promise.all(
    Array.from({ length: count }, (_, index) => turnEvent(orgId, sessions[index % keys] ?? "", index)),
  );

  const figures = async () => {
    const { rows } = await sql<{ effects: bigint; distinct: bigint }>`
      select count(*) as effects, count(distinct event_id) as distinct from effect`.execute(database.engine);
    return { effects: Number(rows[0]?.effects), distinct: Number(rows[0]?.distinct) };
  };

  // The first time all of them, then each as often again.
  await bus.publish(events);
  let consumer = startChild(program, [server.url], environment);
  await consumer.line();
  await reach("a third of the effects", async () => (await figures()).effects >= count / 3, { everyMs: 5 });
  await consumer.crash();
  const { effects: whenKilled } = await figures();
  for (let again = 1; again < deliveries; again++) await bus.publish(events);
  consumer = startChild(program, [server.url], environment);
  await consumer.line();
  const admin = openDatabase<Record<never, never>>({ url: server.url, service: "bus", log });
  await reach("the end of the topic", async () => {
    const { rows } = await sql<{ lag: bigint }>`
      select group_lag('sample.effects', ${conversationTurns.name}) as lag`.execute(admin.engine);
    return rows[0]?.lag === 0n;
  });
  const code = await consumer.finish();
  if (code !== 0) throw new Error(`the consumer ended with ${code}: ${consumer.errors()}`);
  const verdict = { ...(await figures()), whenKilled };
  await bus.close();
  await admin.close();
  await database.close();
  await server.drop();
  return verdict;
}
