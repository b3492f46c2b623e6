// A relay of a process of its own:
//   node relay-process.ts <database url> [<connection to Kafka, JSON>]
// It moves the outbox `sample.entry` to the bus. It writes a line when it is at
// work, and ends when its standard input does.
import { sql } from "kysely";
import pino from "pino";
import { type RelaySource, startRelay } from "../../services/runtime/bus/relay.ts";
import { conversationTurns } from "../../services/runtime/bus/topics.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import type { OutboxSchema } from "./bus-world.ts";
import { openTestBus } from "./test-bus.ts";

const [, , url = "", kafka] = process.argv;
const log = pino({ level: "warn" }, pino.destination(2));
const database = openDatabase<OutboxSchema>({ url, service: "sample", log });
const bus = await openTestBus(url, kafka, log);

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
    const events = rows.map(({ key, headers, value }) => ({ topic: conversationTurns.name, key, headers, value }));
    return { events, position: last.position, more: rows.length === limit };
  },
  async markRelayed(position) {
    await database.engine.updateTable("relayed").set({ position }).execute();
  },
  async lag() {
    return 0n;
  },
};

const relay = startRelay({ name: "sample", source, bus, log, batchSize: 20, idleMs: 20 });
process.stdout.write("at work\n");
process.stdin.resume();
process.stdin.once("end", async () => {
  await relay.stop();
  await bus.close();
  await database.close();
});
