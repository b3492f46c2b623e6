// A consumer of a process of its own:
//   node consumer-process.ts <database url> [<connection to Kafka, JSON>]
// It writes a row to `sample.effect` for each effect. It writes a line when it
// is at work, and ends when its standard input does.
import pino from "pino";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { consumeToEffects } from "./effect-consumer.ts";
import type { EffectSchema } from "./effect-schema.ts";
import { openTestBus } from "./test-bus.ts";

const [, , url = "", kafka] = process.argv;
const log = pino({ level: "warn" }, pino.destination(2));
const database = openDatabase<EffectSchema>({ url, service: "sample", log });
const bus = await openTestBus(url, kafka, log);
const consumer = consumeToEffects(bus, database, log);
process.stdout.write("at work\n");
process.stdin.resume();
process.stdin.once("end", async () => {
  await consumer.stop();
  await bus.close();
  await database.close();
});
