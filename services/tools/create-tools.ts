import { BoundedMap } from "../runtime/cache/bounded-map.ts";
import { withBoundaries } from "../runtime/failpoint/failpoint.ts";
import type { Limits } from "../runtime/identity/limits.ts";
import { fromUuid } from "../runtime/ids/id.ts";
import type { Logger } from "../runtime/log/log.ts";
import type { PageTokens } from "../runtime/page/page-token.ts";
import type { ServiceAudit } from "../runtime/platform/platform.ts";
import type { Database } from "../runtime/postgres/database.ts";
import type { Implementation } from "../runtime/rpc/implementation.ts";
import { BuiltInCatalog } from "./app/built-in-catalog.ts";
import { CallAudit } from "./app/call-audit.ts";
import { DefinitionCache } from "./app/definition-cache.ts";
import type { ToolsDeps } from "./app/deps.ts";
import { keepTime } from "./app/keep-time.ts";
import { RunningBuiltIns } from "./app/running-built-ins.ts";
import type { WorkerPrincipals } from "./app/worker-principals.ts";
import { createCalculator } from "./builtin/calculator.ts";
import { createClock } from "./builtin/clock.ts";
import { echo } from "./builtin/echo.ts";
import { createHttpFetch } from "./builtin/http-fetch.ts";
import type { ToolsConfig } from "./config.ts";
import { recordDenial } from "./egress/record-denial.ts";
import { toolExecutionHandlers } from "./rpc/tool-execution-handlers.ts";
import { toolHandlers } from "./rpc/tool-handlers.ts";
import { toolWorkerHandlers } from "./rpc/tool-worker-handlers.ts";
import { PostgresCallStore } from "./store/postgres-call-store.ts";
import { PostgresToolStore } from "./store/postgres-tool-store.ts";
import { PostgresWorkerStore } from "./store/postgres-worker-store.ts";
import type { ToolsSchema } from "./store/schema.ts";
import { stopTopic, WakeUps } from "./store/wake-ups.ts";

export interface CreateToolsOptions {
  readonly config: ToolsConfig;
  readonly database: Database<ToolsSchema>;
  readonly principals: WorkerPrincipals;
  readonly limits: Limits;
  readonly denials: ServiceAudit["denials"];
  readonly pages: PageTokens;
  readonly log: Logger;
  /** Unique for each start; without blanks. */
  readonly replicaId: string;
}

/** A replica of the service, without a server around it. */
export interface Tools {
  readonly implementations: readonly Implementation[];
  /** Tells workers to go elsewhere, and ends their streams. Calls that run go on. */
  drain(): void;
  /** Ends what runs in the background. The database stays open. */
  stop(): Promise<void>;
}

/** Hand-outs whose definitions are remembered; of others they are read again. */
const maxHandouts = 10_000;

/** Builds a replica over a migrated database. */
export async function createTools(options: CreateToolsOptions): Promise<Tools> {
  const { config, database, denials, log } = options;
  const wakeUps = new WakeUps(options.replicaId);
  const calculator = createCalculator();
  const httpFetch = createHttpFetch(async (call) => {
    // Its client is loaded when something is fetched, not when the server starts.
    const { createEgressGuard } = await import("./egress/egress-guard.ts");
    return createEgressGuard({
      allow: config.CADRE_EGRESS_ALLOW,
      allowPrivate: config.CADRE_EGRESS_ALLOW_PRIVATE,
      onDenied: recordDenial(denials, { orgId: fromUuid("org", call.orgId), requestId: call.requestId }),
    });
  });
  const tools = new PostgresToolStore(database);
  const draining = new AbortController();
  const deps: ToolsDeps = {
    tools,
    workers: withBoundaries(new PostgresWorkerStore(database, wakeUps), {
      connect: "worker.connect",
      disconnect: "worker.disconnect",
      heartbeat: "worker.heartbeat",
      news: "worker.news",
      fill: "worker.fill",
      endExpired: "worker.end-expired",
    }),
    calls: withBoundaries(new PostgresCallStore(database, wakeUps, config.CADRE_TOOLS_WORKER_WAIT_MS), {
      begin: "call.begin",
      dispatch: "call.dispatch",
      read: "call.read",
      cancel: "call.cancel",
      endCancelled: "call.end-cancelled",
      appendOutput: "call.output",
      end: "call.end",
      sweep: "call.sweep",
    }),
    wakeUps,
    builtIns: new BuiltInCatalog([calculator, createClock(), echo, httpFetch]),
    running: new RunningBuiltIns(wakeUps, log),
    definitions: new DefinitionCache(tools),
    handouts: new BoundedMap(maxHandouts),
    principals: options.principals,
    limits: options.limits,
    audit: new CallAudit(denials),
    announceStop: (orgId, key) => wakeUps.announce(database, stopTopic(orgId, key)),
    stopping: draining.signal,
    log,
  };
  const unlisten = await wakeUps.listen(database);
  const stopTime = keepTime(deps, { retentionMs: config.CADRE_TOOLS_CALL_RETENTION_HOURS * 3_600_000 });
  return {
    implementations: [
      toolHandlers(deps, options.pages),
      toolExecutionHandlers(deps),
      toolWorkerHandlers(deps),
    ] as readonly Implementation[],
    drain: () => draining.abort(),
    async stop() {
      draining.abort();
      await Promise.all([stopTime(), unlisten(), calculator.close()]);
    },
  };
}
