// The relays of credentials in a process of their own, for tests that kill them:
//   node credentials-relay-process.ts <database url> <by which name it holds the lease>
// It ends when it is killed.
import { metrics } from "@opentelemetry/api";
import pino from "pino";
import { startRelays } from "../../services/credentials/events/start-relays.ts";
import type { CredentialsSchema } from "../../services/credentials/store/schema.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { openTestBus } from "./test-bus.ts";

const [, , url = "", processId = ""] = process.argv;
const log = pino({ level: "warn" }, pino.destination(2));
startRelays({
  platform: { registry: undefined, meter: metrics.getMeter("test"), processId },
  database: openDatabase<CredentialsSchema>({ url, service: "credentials", log }),
  bus: await openTestBus(url, undefined, log),
  log,
});
