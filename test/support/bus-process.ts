// A process of its own at one end of the bus:
//   node bus-process.ts relay|consumer <database url> [<broker of Kafka>]
// The relay moves the table `sample.entry` to the bus; the consumer writes what
// it gets to the table `sample.seen`. It writes a line when it is at work, and
// ends when its standard input does.
import { sql } from "kysely";
import pino from "pino";
import { openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { type RelaySource, startRelay } from "../../services/runtime/bus/relay.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import type { SampleSchema } from "./bus-kills.ts";

const [, , role, url = "", broker] = process.argv;
const topics = [{ name: "faulty", partitions: 6 }];
const log = pino({ level: "warn" }, pino.destination(2));
const database = openDatabase<SampleSchema>({ url, service: "sample", log });
const bus =
  broker === undefined
    ? await openPostgresEventBus({ url, log, topics, leaseMs: 1_500 })
    : openKafkaEventBus({ connection: async () => ({ brokers: [broker] }), log, topics, sessionMs: 6_000 });

const source: RelaySource = {
  async read(limit) {
    const rows = await database.engine
      .selectFrom("entry")
      .selectAll()
      .where("position", ">", sql<bigint>`(select position from relayed)`)
      .orderBy("position")
      .limit(limit)
      .execute();
    const last = rows.at(-1);
    if (last === undefined) return undefined;
    const events = rows.map(({ key, number }) => ({
      topic: "faulty",
      key,
      headers: { number: String(number) },
      value: Buffer.from(`${key}/${number}`),
    }));
    return { events, position: last.position, more: rows.length === limit };
  },
  async markRelayed(position) {
    await database.engine.updateTable("relayed").set({ position }).execute();
  },
  async lag() {
    return 0n;
  },
};

const atWork =
  role === "relay"
    ? startRelay({ name: "faulty", source, bus, log, batchSize: 20, idleMs: 20 })
    : bus.subscribe({
        topic: "faulty",
        group: "witness",
        handle: async ({ key, headers }) => {
          await database.engine
            .insertInto("seen")
            .values({ key, number: Number(headers.number) })
            .execute();
        },
      });
process.stdout.write("at work\n");
process.stdin.resume();
process.stdin.once("end", async () => {
  await atWork.stop();
  await bus.close();
  await database.close();
});
