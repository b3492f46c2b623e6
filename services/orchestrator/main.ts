import { join } from "node:path";
import { AuthenticationService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { FieldUseService } from "@cadre/gen/cadre/registry/v1/field_use_pb";
import { ToolExecutionService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { createFileBlobStore } from "../runtime/blob/file-blob-store.ts";
import { consumeRepeatable } from "../runtime/bus/consumer/consume-repeatable.ts";
import { createFieldReads } from "../runtime/bus/consumer/field-reads.ts";
import { openEventBus } from "../runtime/bus/open-event-bus.ts";
import { openEventCodec } from "../runtime/bus/open-event-codec.ts";
import { registeredTopics } from "../runtime/bus/registered-topics.ts";
import { startRelay } from "../runtime/bus/relay.ts";
import { agentRunsRequested, topics } from "../runtime/bus/topics.ts";
import { ConfigurationError } from "../runtime/config/settings.ts";
import { createChangeFeed } from "../runtime/identity/change-feed.ts";
import { clockDependency, hasWrongClock } from "../runtime/identity/clock-dependency.ts";
import { createLimits } from "../runtime/identity/limits.ts";
import { createPrincipalCheck } from "../runtime/identity/principal-check.ts";
import type { ServiceName } from "../runtime/mesh/mesh.ts";
import { loadPageTokens } from "../runtime/page/load-page-tokens.ts";
import type { StartService } from "../runtime/platform/platform.ts";
import { startIdempotencyPruning } from "../runtime/postgres/idempotency.ts";
import { migrate } from "../runtime/postgres/migrator.ts";
import { openDatabase } from "../runtime/postgres/open-database.ts";
import type { OrchestratorConfig } from "./config.ts";
import { createJournalRelaySource } from "./events/journal-relay-source.ts";
import { openLedgerKeys } from "./ledger/ledger-keys.ts";
import { createConfiguredModels } from "./models/configured-models.ts";
import { createOrchestrator } from "./orchestrator.ts";
import { createRequestAuthority } from "./requests/request-authority.ts";
import { startRequestedRun } from "./requests/start-requested-run.ts";
import { createToolRunner } from "./rpc/tool-client.ts";
import { migrations } from "./store/migrations/index.ts";
import type { OrchestratorSchema } from "./store/schema.ts";

const self: ServiceName = "orchestrator";

/** Of each role. One committer writes, and the rest is short reads; a cold start opens these within two seconds. */
const maxConnections = 6;

/** How long a try to start a run that was asked for through the bus may take, in milliseconds. */
const requestAttemptMs = 5_000;

/** Starts the orchestrator. */
export const startOrchestrator: StartService<OrchestratorConfig> = async (platform, config) => {
  const log = platform.log.child({ component: self });
  const { databaseUrl: url, tracer, meter } = platform;
  const pages = loadPageTokens(platform);
  const models = createConfiguredModels(config);
  if (models.find(config.CADRE_DEFAULT_MODEL) === undefined) {
    const known = models.list().map(({ name }) => name);
    throw new ConfigurationError([
      `CADRE_DEFAULT_MODEL is none of the models that are configured: ${known.join(", ")}`,
    ]);
  }

  await migrate({ url, service: self, migrations, log });
  const database = openDatabase<OrchestratorSchema>({ url, service: self, log, tracer, meter, maxConnections });
  const { bus, dependencies } = await openEventBus({ kafka: platform.kafka, databaseUrl: url, log, tracer, meter });
  const stopPruning = startIdempotencyPruning(database.engine, log);

  const authentication = platform.client(self, "credentials", AuthenticationService);
  const changes = createChangeFeed({ client: authentication, processId: platform.processId, log });
  const { engine, startRun, implementations } = createOrchestrator({
    database,
    blobs: await createFileBlobStore(join(platform.dataDirectory, "blobs")),
    models,
    defaultModel: config.CADRE_DEFAULT_MODEL,
    tools: createToolRunner(platform.client(self, "tools", ToolExecutionService), log),
    principals: createPrincipalCheck({ authentication, changes }),
    limits: createLimits({ authentication, changes, log }),
    pages,
    ledgerKeys: openLedgerKeys({
      directory: config.CADRE_LEDGER_KEYS ?? join(platform.dataDirectory, "keys", "ledger"),
      log: log.child({ component: "ledger" }),
    }),
    audit: platform.audit(self).sink,
    meter,
    tracer,
    log,
    process: platform.processId,
    leaseMs: config.CADRE_ORCHESTRATOR_LEASE_MS,
    maxUnrelayedEntries: config.CADRE_MAX_UNRELAYED_ENTRIES,
    previousWritersAreDead: config.CADRE_ORCHESTRATOR_PREVIOUS_WRITERS_ARE_DEAD,
    hasWrongClock: () => hasWrongClock(changes),
    // Who holds the data directory is the only one, before and from now on.
    alone: config.CADRE_ORCHESTRATOR_PREVIOUS_WRITERS_ARE_DEAD,
  });
  const { codec, schemaIds } = openEventCodec(platform.registry, meter);
  const relay = startRelay({
    name: self,
    source: createJournalRelaySource({
      database,
      codec,
      writer: () => engine.status.writer,
      onLag: (entries) => engine.setUnrelayed(entries),
      // Elsewhere only servers could follow them, and they cost a fifth more processor time a trivial step.
      withSteps: config.CADRE_STEP_FACTS ?? platform.kafka !== undefined,
    }),
    bus,
    log: log.child({ component: "relay" }),
    meter,
  });
  engine.onStored(() => relay.wake());

  const server = await platform.serve(self, {
    implementations,
    topics,
    dependencies: [
      database.dependency,
      ...dependencies,
      clockDependency(changes),
      ...(platform.mode === "production" && platform.registry !== undefined
        ? [registeredTopics(schemaIds, topics)]
        : []),
      {
        name: "shards",
        check: async () =>
          engine.owning
            ? { state: ServingState.SERVING, detail: "" }
            : { state: ServingState.NOT_SERVING, detail: "the process has no lease" },
      },
    ],
  });
  // Last: turns that go on call peers at once, and readers can follow them from their first event.
  await engine.start();
  const authority = createRequestAuthority(authentication);
  const fieldReads = createFieldReads({ registry: platform.client(self, "registry", FieldUseService), log });
  const requests = consumeRepeatable({
    bus,
    codec,
    topic: agentRunsRequested,
    group: "orchestrator.requests",
    handle: (requested, signal) => startRequestedRun({ authority, startRun }, requested, signal),
    attemptMs: requestAttemptMs,
    fieldReads,
    log: log.child({ component: "requests" }),
    tracer,
    meter,
  });

  let stopped: Promise<void> | undefined;
  return {
    name: self,
    stop(graceMs) {
      stopped ??= (async () => {
        await requests.stop();
        fieldReads.stop();
        // Streams end by this, so that the server has nothing to wait for.
        await engine.stop();
        await server.close(graceMs);
        await relay.stop();
        await Promise.all([changes.stop(), stopPruning(), bus.close()]);
        await database.close();
      })();
      return stopped;
    },
  };
};
