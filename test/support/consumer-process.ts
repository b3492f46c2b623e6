// A consumer of a process of its own:
//   node consumer-process.ts <database url>
// It follows the turns' facts with all that `consume` brings, and writes a row
// to `sample.effect` for each effect. It writes a line when it is at work, and
// ends when its standard input does.
import { metrics, trace } from "@opentelemetry/api";
import pino from "pino";
import { consume } from "../../services/runtime/bus/consumer/consume.ts";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { conversationTurns } from "../../services/runtime/bus/topics.ts";
import { toUuid } from "../../services/runtime/ids/id.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import type { EffectSchema } from "./effect-schema.ts";
import { codec } from "./turn-facts.ts";

const [, , url = ""] = process.argv;
const log = pino({ level: "warn" }, pino.destination(2));
const database = openDatabase<EffectSchema>({ url, service: "sample", log });
const bus = await openPostgresEventBus({ url, log, leaseMs: 1_500 });

const consumer = consume({
  bus,
  codec,
  topic: conversationTurns,
  group: "sample.effects",
  database,
  handle: async ({ fact, eventId, orgId }, transaction) => {
    const row = { org_id: toUuid("org", orgId), event_id: eventId, seq: Number(fact.metadata?.seq) };
    await transaction.insertInto("effect").values(row).execute();
  },
  log,
  tracer: trace.getTracer("test"),
  meter: metrics.getMeter("test"),
});
process.stdout.write("at work\n");
process.stdin.resume();
process.stdin.once("end", async () => {
  await consumer.stop();
  await bus.close();
  await database.close();
});
