import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import type { AuditEvent } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { type Principal, PrincipalKind, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { AgentService } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { ModelService } from "@cadre/gen/cadre/orchestrator/v1/model_pb";
import { RunService } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { ScheduleService } from "@cadre/gen/cadre/orchestrator/v1/schedule_pb";
import type { SessionEvent } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { ToolExecutionService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { type Client, ConnectError, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createNoopMeter, trace } from "@opentelemetry/api";
import pino from "pino";
import { openLedgerKeys } from "../../services/orchestrator/ledger/ledger-keys.ts";
import { createModelCatalog, type Model } from "../../services/orchestrator/models/model.ts";
import { createScriptedModel } from "../../services/orchestrator/models/scripted.ts";
import { createOrchestrator, type Orchestrator } from "../../services/orchestrator/orchestrator.ts";
import { createToolRunner } from "../../services/orchestrator/rpc/tool-client.ts";
import type { AppendStore } from "../../services/orchestrator/store/append-store.ts";
import { migrations } from "../../services/orchestrator/store/migrations/index.ts";
import type { OwnershipStore } from "../../services/orchestrator/store/ownership-store.ts";
import type { OrchestratorSchema } from "../../services/orchestrator/store/schema.ts";
import { createFileBlobStore } from "../../services/runtime/blob/file-blob-store.ts";
import { AppError, type FailureReason } from "../../services/runtime/errors/app-error.ts";
import { toAppError, toConnectError } from "../../services/runtime/errors/failure.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import type { Logger } from "../../services/runtime/log/log.ts";
import { createMemoryMesh } from "../../services/runtime/memory/memory-mesh.ts";
import type { Mesh } from "../../services/runtime/mesh/mesh.ts";
import { createPageTokens } from "../../services/runtime/page/page-token.ts";
import type { Database } from "../../services/runtime/postgres/database.ts";
import { migrate } from "../../services/runtime/postgres/migrator.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { implement } from "../../services/runtime/rpc/implementation.ts";
import { requestContextKey } from "../../services/runtime/rpc/request-context.ts";
import { FakeTools } from "./fake-tools.ts";

export interface TestOrchestratorOptions {
  readonly databaseUrl: string;
  readonly models?: readonly Model[];
  readonly defaultModel?: string;
  readonly tools?: FakeTools;
  readonly leaseMs?: number;
  readonly previousWritersAreDead?: boolean;
  readonly limits?: Readonly<Record<string, number>>;
  /** Whom credentials would refuse. */
  readonly revoked?: ReadonlySet<string>;
  readonly keepaliveMs?: number;
  readonly maxUnrelayedEntries?: number;
  readonly wrapAppendStore?: (store: AppendStore) => AppendStore;
  readonly logLevel?: string;
  /** Whether it takes shards and runs turns. Default true; else it only reads, and hands commands on. */
  readonly takesShards?: boolean;
}

/** An orchestrator in this process, with its own database connections, called over the in-memory mesh. */
export interface TestOrchestrator {
  readonly sessions: Client<typeof SessionService>;
  readonly agents: Client<typeof AgentService>;
  readonly models: Client<typeof ModelService>;
  readonly runs: Client<typeof RunService>;
  readonly schedules: Client<typeof ScheduleService>;
  /** What it wrote to the audit log. */
  readonly audited: readonly AuditEvent[];
  readonly tools: FakeTools;
  readonly orchestrator: Orchestrator;
  readonly database: Database<OrchestratorSchema>;
  /** Clients that act for another principal. */
  as(principal: Principal): Client<typeof SessionService>;
  stop(): Promise<void>;
}

/** A key of an org. */
export function testPrincipal(orgId: string = newId("org")): Principal {
  return create(PrincipalSchema, {
    kind: PrincipalKind.KEY,
    subject: newId("key"),
    orgId,
    role: Role.OWNER,
    scopes: ["*"],
  });
}

/** What limits are unless a test says otherwise. */
const testLimits: Readonly<Record<string, number>> = {
  sessions: 10_000,
  concurrent_turns: 10_000,
  queued_turns: 16,
  open_runs: 1_000_000,
  schedules: 100,
  run_retention_days: 30,
};

/** Migrates the database. */
export async function migrateOrchestrator(databaseUrl: string): Promise<void> {
  await migrate({ url: databaseUrl, service: "orchestrator", migrations, log: pino({ level: "silent" }) as Logger });
}

/** Starts an orchestrator over a migrated database. */
export async function startTestOrchestrator(
  options: TestOrchestratorOptions,
  principal: Principal = testPrincipal(),
): Promise<TestOrchestrator> {
  const log = pino({ level: options.logLevel ?? process.env.TEST_LOG ?? "silent" }) as Logger;
  const database = openDatabase<OrchestratorSchema>({
    url: options.databaseUrl,
    service: "orchestrator",
    log,
    maxConnections: 6,
  });
  const tools = options.tools ?? new FakeTools();
  const mesh = createMemoryMesh();
  await mesh.serve("tools", {
    implementations: [implement(ToolExecutionService, tools.handlers)] as never,
    interceptors: [serverContext(principal)],
  });
  const toolClient = createClient(ToolExecutionService, mesh.transport("tools", []));
  const models = options.models ?? [createScriptedModel()];
  const audited: AuditEvent[] = [];
  const blobs = await mkdtemp(join(tmpdir(), "cadre-blobs-"));
  const orchestrator = createOrchestrator({
    database,
    blobs: await createFileBlobStore(blobs),
    models: createModelCatalog(models),
    defaultModel: options.defaultModel ?? models[0]?.name ?? "scripted",
    tools: createToolRunner(toolClient, log),
    principals: {
      async assertMayAct(asked) {
        if (options.revoked?.has(asked.subject) === true) {
          throw new AppError("PRINCIPAL_REVOKED", "the credential is valid no more");
        }
        return asked;
      },
    },
    limits: { get: (_orgId, name) => options.limits?.[name] ?? testLimits[name] ?? 0 },
    pages: createPageTokens(new Uint8Array(32)),
    ledgerKeys: openLedgerKeys({ directory: join(blobs, "keys"), log }),
    audit: { append: async (event) => void audited.push(event) },
    meter: createNoopMeter(),
    tracer: trace.getTracer("test"),
    log,
    process: `test ${process.pid}`,
    leaseMs: options.leaseMs ?? 5_000,
    previousWritersAreDead: options.previousWritersAreDead ?? false,
    ...(options.keepaliveMs === undefined ? {} : { keepaliveMs: options.keepaliveMs }),
    ...(options.maxUnrelayedEntries === undefined ? {} : { maxUnrelayedEntries: options.maxUnrelayedEntries }),
    ...(options.takesShards === false ? { ownership: owningNothing } : {}),
    ...(options.wrapAppendStore === undefined ? {} : { wrapAppendStore: options.wrapAppendStore }),
  });
  await orchestrator.engine.start();
  const transport = await serve(mesh, orchestrator, principal);
  let stopped: Promise<void> | undefined;
  return {
    sessions: createClient(SessionService, transport),
    agents: createClient(AgentService, transport),
    models: createClient(ModelService, transport),
    runs: createClient(RunService, transport),
    schedules: createClient(ScheduleService, transport),
    audited,
    tools,
    orchestrator,
    database,
    as: (other) => createClient(SessionService, mesh.transport("orchestrator", [actingAs(other)])),
    stop() {
      stopped ??= (async () => {
        await orchestrator.engine.stop();
        await mesh.close();
        await database.close();
        await rm(blobs, { recursive: true, force: true });
      })();
      return stopped;
    },
  };
}

/** Takes part without a writer, so that the others do not count it either. */
const owningNothing: OwnershipStore = {
  clock: async () => Date.now(),
  register: async () => -1n,
  claim: async () => ({ shards: new Map(), fairShare: 64 }),
  release: async (_writer, shards) => shards,
  retire: async () => undefined,
  purge: async () => 0,
};

async function serve(mesh: Mesh, orchestrator: Orchestrator, principal: Principal): Promise<Transport> {
  await mesh.serve("orchestrator", {
    implementations: orchestrator.implementations,
    interceptors: [serverContext(principal)],
  });
  return mesh.transport("orchestrator", []);
}

const principals = new Map<string, Principal>();

/** A client that acts for a principal: told by a header, which only the test's server reads. */
function actingAs(principal: Principal): Interceptor {
  principals.set(principal.subject, principal);
  return (next) => (request) => {
    request.header.set("x-test-subject", principal.subject);
    return next(request);
  };
}

/** Stands for the interceptors that the platform runs: a request context, and errors of the contract. */
function serverContext(principal: Principal): Interceptor {
  return (next) => async (request) => {
    const requestId = newId("req");
    const timeout = request.header.get("x-test-timeout");
    request.contextValues.set(requestContextKey, {
      requestId,
      traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
      source: "test",
      deadline: timeout === null ? Number.POSITIVE_INFINITY : Date.now() + Number(timeout),
      signal: request.signal,
      principal: principals.get(request.header.get("x-test-subject") ?? "") ?? principal,
      callingService: undefined,
      idempotencyKey: request.header.get("idempotency-key") ?? "",
    });
    try {
      const response = await next(request);
      if (!response.stream) return response;
      const { message } = response;
      return {
        ...response,
        message: (async function* () {
          try {
            yield* message;
          } catch (error) {
            throw toConnectError(toAppError(error), requestId);
          }
        })(),
      };
    } catch (error) {
      throw toConnectError(toAppError(error), requestId);
    }
  };
}

/** The reason of a failed call. */
export async function reasonOf(call: Promise<unknown>): Promise<FailureReason> {
  try {
    await call;
  } catch (error) {
    if (error instanceof ConnectError) return toAppError(error).reason;
    throw error;
  }
  throw new Error("the call succeeded");
}

/** Creates a session with the assistant. */
export async function newSession(sessions: Client<typeof SessionService>, agent = ""): Promise<string> {
  const { session } = await sessions.createSession({ agent });
  if (session === undefined) throw new Error("no session");
  return session.sessionId;
}

/** Reads events from `afterSeq` on until one satisfies `until`, that one included. */
export async function readEvents(
  sessions: Client<typeof SessionService>,
  sessionId: string,
  afterSeq: bigint,
  until: (event: SessionEvent) => boolean,
  timeoutMs = 30_000,
): Promise<SessionEvent[]> {
  const events: SessionEvent[] = [];
  const signal = AbortSignal.timeout(timeoutMs);
  for await (const { event } of sessions.streamEvents({ sessionId, afterSeq }, { signal })) {
    if (event === undefined) continue;
    events.push(event);
    if (until(event)) return events;
  }
  throw new Error(`the stream ended after ${events.map((event) => event.body.case).join()}`);
}

/** Whether an event ends a turn; any, or the one named. */
export function endsTurn(turnId?: string): (event: SessionEvent) => boolean {
  return (event) => event.body.case === "turnEnded" && (turnId === undefined || event.turnId === turnId);
}

/** The text that a reader would show: deltas in order, without discarded attempts. */
export function shownText(events: readonly SessionEvent[]): string {
  const parts: { stepId: string; attempt: number; text: string }[] = [];
  for (const { body } of events) {
    if (body.case === "textDelta") parts.push(body.value);
    if (body.case === "attemptDiscarded") {
      for (let index = parts.length - 1; index >= 0; index -= 1) {
        const part = parts[index];
        if (part?.stepId === body.value.stepId && part.attempt <= body.value.attempt) parts.splice(index, 1);
      }
    }
  }
  return parts.map(({ text }) => text).join("");
}
