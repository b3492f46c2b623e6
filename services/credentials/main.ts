import { join } from "node:path";
import { createBatchingAuditSink } from "../runtime/audit/batching-audit-sink.ts";
import { createDenialLog } from "../runtime/audit/denial-log.ts";
import { openEventBus } from "../runtime/bus/open-event-bus.ts";
import { loadOrMakeKeyFile, readKeyFile } from "../runtime/identity/key-file.ts";
import { loadPageTokens } from "../runtime/page/load-page-tokens.ts";
import type { Platform, RunningService } from "../runtime/platform/platform.ts";
import { startIdempotencyPruning } from "../runtime/postgres/idempotency.ts";
import { migrate } from "../runtime/postgres/migrator.ts";
import { openDatabase } from "../runtime/postgres/open-database.ts";
import { toContent } from "./app/audit-event.ts";
import { type FirstKey, firstStart } from "./app/first-start.ts";
import { createKeyUse } from "./app/key-use.ts";
import { createRunRequestTokens } from "./app/run-request-token.ts";
import { createJwtVerifier } from "./app/verify-jwt.ts";
import { createChangeHub } from "./changes/change-hub.ts";
import type { CredentialsConfig } from "./config.ts";
import { startRelays } from "./events/start-relays.ts";
import { createImplementations } from "./rpc/handlers.ts";
import { createAuditLog } from "./store/audit-log.ts";
import { changeChannel, createPostgresChangeStore } from "./store/change-store.ts";
import { migrations } from "./store/migrations/index.ts";
import type { CredentialsSchema } from "./store/schema.ts";

const productionKeyLifetimeMs = 90 * 24 * 3_600_000;

/** The started service. */
export interface RunningCredentials extends RunningService {
  /** The first org's key, if this start made it: show it once. */
  readonly firstKey: FirstKey | undefined;
}

/** Starts credentials. */
export async function startCredentials(platform: Platform, config: CredentialsConfig): Promise<RunningCredentials> {
  const log = platform.log.child({ component: "credentials" });
  const { databaseUrl: url, dataDirectory, processId, tracer, meter } = platform;
  const isProduction = platform.mode === "production";
  const hmacKey =
    config.CADRE_CREDENTIALS_HMAC_KEY_FILE === undefined
      ? loadOrMakeKeyFile(join(dataDirectory, "keys", "credentials.key"))
      : readKeyFile(config.CADRE_CREDENTIALS_HMAC_KEY_FILE);
  const pageTokens = loadPageTokens(platform);
  const jwts = createJwtVerifier(config.CADRE_JWT_ISSUERS);

  const [{ bus, dependencies }] = await Promise.all([
    openEventBus({ kafka: platform.kafka, databaseUrl: url, log, tracer, meter }),
    migrate({ url, service: "credentials", migrations, log }),
  ]);
  const database = openDatabase<CredentialsSchema>({ url, service: "credentials", log, tracer, meter });
  const { engine } = database;
  const environment = isProduction ? "live" : "dev";
  const firstKey = await firstStart(
    { database, environment, hmacKey },
    {
      keyFile: join(dataDirectory, "admin.key"),
      keyExpiresAt: isProduction ? new Date(Date.now() + productionKeyLifetimeMs) : null,
    },
  );

  const auditLog = createAuditLog(hmacKey);
  const auditSink = createBatchingAuditSink((events) =>
    engine.transaction().execute((transaction) => auditLog.append(transaction, events.map(toContent))),
  );
  const denials = createDenialLog({ sink: auditSink, log });
  const keyUse = createKeyUse({ engine, log });
  // Connections of its own: leases end while its reads wait behind calls, and without leases every call asks.
  const ownDatabase = openDatabase<CredentialsSchema>({ url, service: "credentials", log, maxConnections: 2 });
  const changes = createChangeHub({ store: createPostgresChangeStore(ownDatabase.engine), processId, log });
  const relays = startRelays({ platform, database, bus, log });
  const onChange = (): void => {
    changes.poke();
    relays.wake();
  };
  const unlisten = await database.listen(changeChannel, onChange, onChange);
  const stopPruning = startIdempotencyPruning(engine, log);

  const server = await platform.serve("credentials", {
    implementations: createImplementations({
      database,
      auditLog,
      changes,
      pageTokens,
      hmacKey,
      environment,
      denials,
      authentication: { engine, hmacKey, jwts, keyUse, runRequestTokens: createRunRequestTokens(hmacKey) },
    }),
    dependencies: [database.dependency, ...dependencies],
    auditSink,
  });

  let stopped: Promise<void> | undefined;
  return {
    name: "credentials",
    firstKey,
    stop(graceMs) {
      stopped ??= (async () => {
        // Watchers hold their streams open; they connect again, to another process.
        await changes.stop();
        await server.close(graceMs);
        await Promise.all([unlisten(), stopPruning(), keyUse.stop(), denials.stop()]);
        await relays.stop();
        await bus.close();
        await Promise.all([database.close(), ownDatabase.close()]);
      })();
      return stopped;
    },
  };
}
