// The relays of credentials in a process of their own, for tests that kill them:
//   node credentials-relay-process.ts <database url> <by which name it holds the lease>
// It ends when it is killed.
import { metrics, trace } from "@opentelemetry/api";
import pino from "pino";
import { startRelays } from "../../services/credentials/events/start-relays.ts";
import type { CredentialsSchema } from "../../services/credentials/store/schema.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";

const [, , databaseUrl = "", processId = ""] = process.argv;
const log = pino({ level: "warn" }, pino.destination(2));
const database = openDatabase<CredentialsSchema>({ url: databaseUrl, service: "credentials", log });
await startRelays({
  platform: {
    databaseUrl,
    kafka: undefined,
    registry: undefined,
    tracer: trace.getTracer("test"),
    meter: metrics.getMeter("test"),
    processId,
  },
  database,
  log,
});
