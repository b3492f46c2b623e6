import { AgentService } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { ModelService } from "@cadre/gen/cadre/orchestrator/v1/model_pb";
import { RunService, type StartRunRequest } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { ScheduleService } from "@cadre/gen/cadre/orchestrator/v1/schedule_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import type { Meter, Tracer } from "@opentelemetry/api";
import type { AuditSink } from "../runtime/audit/audit-sink.ts";
import type { BlobStore } from "../runtime/blob/blob-store.ts";
import { withBoundaries } from "../runtime/failpoint/failpoint.ts";
import type { Limits } from "../runtime/identity/limits.ts";
import type { PrincipalCheck } from "../runtime/identity/principal-check.ts";
import type { Logger } from "../runtime/log/log.ts";
import type { PageTokens } from "../runtime/page/page-token.ts";
import type { Database } from "../runtime/postgres/database.ts";
import { type Implementation, implement } from "../runtime/rpc/implementation.ts";
import { Engine } from "./app/engine.ts";
import { observeEngine } from "./app/engine-metrics.ts";
import { CheckedGraphs } from "./app/graph/checked-graphs.ts";
import { type Asking, startRun } from "./app/graph/start-run.ts";
import type { ToolRunner } from "./app/ports.ts";
import { backpressureRecorder } from "./app/record-backpressure.ts";
import { createTurnMetrics } from "./app/turn-metrics.ts";
import type { LedgerKeys } from "./ledger/ledger-keys.ts";
import { Retention } from "./ledger/retention.ts";
import type { ModelCatalog } from "./models/model.ts";
import { agentHandlers } from "./rpc/agent-handlers.ts";
import { ledgerHandlers } from "./rpc/ledger-handlers.ts";
import { modelHandlers } from "./rpc/model-handlers.ts";
import { runHandlers } from "./rpc/run-handlers.ts";
import { scheduleHandlers } from "./rpc/schedule-handlers.ts";
import { sessionHandlers } from "./rpc/session-handlers.ts";
import { createScheduledRuns } from "./schedule/scheduled-runs.ts";
import { Scheduler } from "./schedule/scheduler.ts";
import { PostgresAnswerStore } from "./store/answer-store.ts";
import type { AppendStore } from "./store/append-store.ts";
import { PostgresInboxStore } from "./store/inbox-store.ts";
import { KnownAgents } from "./store/known-agents.ts";
import { type OwnershipStore, PostgresOwnershipStore } from "./store/ownership-store.ts";
import { createPayloads } from "./store/payloads.ts";
import { PostgresAgentStore } from "./store/postgres-agent-store.ts";
import { PostgresAppendStore } from "./store/postgres-append-store.ts";
import { PostgresRunReadStore } from "./store/postgres-run-read-store.ts";
import { PostgresRunStore } from "./store/postgres-run-store.ts";
import { PostgresSessionStore } from "./store/postgres-session-store.ts";
import { PostgresReceiptStore } from "./store/receipt-store.ts";
import { PostgresScheduleStore } from "./store/schedule-store.ts";
import type { OrchestratorSchema } from "./store/schema.ts";

export interface OrchestratorOptions {
  /** Migrated. */
  readonly database: Database<OrchestratorSchema>;
  /** Where values go that are too large for an entry. */
  readonly blobs: BlobStore;
  readonly models: ModelCatalog;
  readonly defaultModel: string;
  readonly tools: ToolRunner;
  readonly principals: PrincipalCheck;
  readonly limits: Limits;
  readonly pages: PageTokens;
  readonly ledgerKeys: LedgerKeys;
  /** Where what is done run by run is written; what a request asks for is written by whoever let it in. */
  readonly audit: AuditSink;
  readonly meter: Meter;
  readonly tracer: Tracer;
  readonly log: Logger;
  /** Names the process in its writer's row. */
  readonly process: string;
  readonly leaseMs: number;
  readonly previousWritersAreDead: boolean;
  /** Whether peers refuse what this process sends, because its clock is not theirs. Default: they do not. */
  readonly hasWrongClock?: () => boolean;
  /** Whether no other process can be there: nobody is notified then, and agents are remembered. Default: there may be. */
  readonly alone?: boolean;
  /** Milliseconds since the epoch. Default: the system's clock. */
  readonly now?: () => number;
  readonly keepaliveMs?: number;
  readonly maxUnrelayedEntries?: number;
  /** For tests that break the write path. */
  readonly wrapAppendStore?: (store: AppendStore) => AppendStore;
  /** For a test's process that owns nothing. Default: the one in the database. */
  readonly ownership?: OwnershipStore;
}

/** A composed orchestrator. */
export interface Orchestrator {
  readonly implementations: readonly Implementation[];
  readonly engine: Engine;
  /** As RunService.StartRun, for who has checked the request and whoever asks. */
  readonly startRun: (request: StartRunRequest, asking: Asking, signal: AbortSignal) => Promise<unknown>;
  /** Starts and stops with the engine. */
  readonly retention: Pick<Retention, "sweep">;
}

/** Puts the orchestrator together over a database. Start and stop its engine. */
export function createOrchestrator(options: OrchestratorOptions): Orchestrator {
  const { database, models, tools, principals, limits, pages, meter, tracer, log, defaultModel } = options;
  const sessions = withBoundaries(new PostgresSessionStore(database), {
    create: "session.create",
    load: "journal.load",
    parkDamaged: "run.park",
    listOpen: "journal.list-open",
  });
  const stored = new PostgresAgentStore(database);
  const agents = options.alone === true ? new KnownAgents(stored) : stored;
  const append = new PostgresAppendStore(database);
  const agentDeps = { agents, models, defaultModel };
  const payloads = withBoundaries(createPayloads(database, options.blobs), {
    keep: "payload.keep",
    load: "payload.load",
  });
  const engine = new Engine({
    services: {
      models,
      tools,
      principals,
      limits,
      sessions,
      runs: withBoundaries(new PostgresRunStore(database), {
        load: "run.load",
        listRunning: "run.list-running",
        listDue: "run.list-due",
        nextDue: "run.next-due",
        parkDamaged: "run.park",
      }),
      answers: new PostgresAnswerStore(database),
      payloads,
      defaultModel,
      metrics: createTurnMetrics(meter),
      tracer,
      log: log.child({ component: "engine" }),
      now: options.now ?? Date.now,
    },
    pins: { ...agentDeps, tools },
    append: options.wrapAppendStore?.(append) ?? append,
    ownership: withBoundaries(options.ownership ?? new PostgresOwnershipStore(database), {
      register: "writer.register",
      claim: "writer.claim",
      release: "writer.release",
      retire: "writer.retire",
      purge: "writer.purge",
    }),
    inbox: withBoundaries(new PostgresInboxStore(database), {
      put: "inbox.put",
      reply: "inbox.reply",
      waiting: "inbox.waiting",
    }),
    notifications: database,
    process: options.process,
    leaseMs: options.leaseMs,
    previousWritersAreDead: options.previousWritersAreDead,
    ...(options.hasWrongClock === undefined ? {} : { hasWrongClock: options.hasWrongClock }),
    alone: options.alone ?? false,
    ...(options.maxUnrelayedEntries === undefined ? {} : { maxUnrelayedEntries: options.maxUnrelayedEntries }),
    onBackpressure: backpressureRecorder(options.audit, log),
  });
  observeEngine(meter, engine);
  const sessionDeps = {
    ...agentDeps,
    sessions,
    engine,
    limits,
    pages,
    ...(options.keepaliveMs === undefined ? {} : { keepaliveMs: options.keepaliveMs }),
  };
  const receipts = new PostgresReceiptStore(database);
  const runDeps = {
    ...sessionDeps,
    database: database.engine,
    receipts,
    runs: new PostgresRunReadStore(database),
    payloads,
    graphs: new CheckedGraphs(),
    starting: new Map(),
    audit: options.audit,
    log: log.child({ component: "runs" }),
  };
  const ledgerDeps = { ...runDeps, starter: engine, engine: database.engine, tools, keys: options.ledgerKeys };
  const schedules = new PostgresScheduleStore(database);
  const scheduledRuns = createScheduledRuns(runDeps);
  engine.accompany(
    new Scheduler({
      schedules,
      runs: scheduledRuns,
      principals,
      now: engine.now,
      shards: () => engine.shards,
      feed: engine.feed,
      notifications: database,
      log: log.child({ component: "schedules" }),
    }),
  );
  const retention = new Retention({
    engine: database.engine,
    receipts,
    payloads,
    limits,
    owning: () => engine.owning,
    log: log.child({ component: "retention" }),
  });
  engine.accompany(retention);
  return {
    engine,
    startRun: (request, asking, signal) => startRun(runDeps, request, asking, signal),
    retention,
    implementations: [
      implement(AgentService, agentHandlers({ ...agentDeps, graphs: runDeps.graphs, pages })),
      implement(SessionService, sessionHandlers(sessionDeps)),
      implement(ModelService, modelHandlers({ models, pages })),
      implement(RunService, { ...runHandlers(runDeps), ...ledgerHandlers(ledgerDeps) }),
      implement(ScheduleService, scheduleHandlers({ ...scheduledRuns, schedules, limits, pages, now: engine.now })),
    ] as unknown as readonly Implementation[],
  };
}
