import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { PrincipalKind, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { ExecuteToolUnaryRequestSchema, ToolExecutionService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { createClient, createContextValues, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import { metrics, trace } from "@opentelemetry/api";
import pino from "pino";
import { createDenialLog } from "../services/runtime/audit/denial-log.ts";
import { parseSettings } from "../services/runtime/config/settings.ts";
import { freezePrincipal } from "../services/runtime/identity/principal.ts";
import { createLocalAuthority } from "../services/runtime/identity/service-identity.ts";
import { createServiceTokenVerifier } from "../services/runtime/identity/service-token.ts";
import { createServiceTokenAuthenticator } from "../services/runtime/identity/service-token-authenticator.ts";
import { createServiceTokenInterceptor } from "../services/runtime/identity/service-token-interceptor.ts";
import { newId } from "../services/runtime/ids/id.ts";
import { accessRules } from "../services/runtime/interceptor/access-rule.ts";
import { meshInterceptors } from "../services/runtime/interceptor/chain.ts";
import { createMemoryMesh } from "../services/runtime/memory/memory-mesh.ts";
import { createPageTokens } from "../services/runtime/page/page-token.ts";
import { startEmbeddedPostgres } from "../services/runtime/postgres/embedded-server.ts";
import { migrate } from "../services/runtime/postgres/migrator.ts";
import { openDatabase } from "../services/runtime/postgres/open-database.ts";
import { onBehalfOf, type RequestContext, requestContextKey } from "../services/runtime/rpc/request-context.ts";
import { startTelemetry } from "../services/runtime/telemetry/telemetry.ts";
import { toolsSettings } from "../services/tools/config.ts";
import { createTools } from "../services/tools/create-tools.ts";
import { migrations } from "../services/tools/store/migrations/index.ts";
import type { ToolsSchema } from "../services/tools/store/schema.ts";
import { type Comparison, median, printReport } from "./report.ts";

// What a durable step that calls `echo` costs: the whole call as the engine
// makes it in one process, encoding and all interceptors included, and the part
// of it that is the tools service's own.

const rounds = 9;
const callsARound = 10_000;
/** Calls that the engine has under way at once. */
const concurrency = 50;

const dataDirectory = await mkdtemp(join(tmpdir(), "cadre bench echo "));
const log = pino({ level: "warn" });
const postgres = await startEmbeddedPostgres({ dataDirectory, log });
await migrate({ url: postgres.url, service: "tools", migrations, log });
const database = openDatabase<ToolsSchema>({ url: postgres.url, service: "tools", log });
const telemetry = await startTelemetry({
  serviceName: "bench",
  version: "0",
  processId: "bench",
  otlpEndpoint: undefined,
  sampleRatio: 0,
});
const authority = createLocalAuthority();
const sink = { append: async () => {} };
const denials = createDenialLog({ sink, log, meter: metrics.getMeter("bench") });
const tools = await createTools({
  config: parseSettings(toolsSettings, {}),
  database,
  principals: { assertMayAct: async () => undefined, onChange: () => () => undefined },
  limits: { get: () => 10 },
  denials,
  pages: createPageTokens(new Uint8Array(32)),
  log,
  replicaId: "bench",
});
const mesh = createMemoryMesh();
await mesh.serve("tools", {
  implementations: tools.implementations,
  interceptors: meshInterceptors({
    host: "tools",
    tracer: trace.getTracer("bench"),
    meter: metrics.getMeter("bench"),
    log,
    rules: accessRules(),
    authenticator: createServiceTokenAuthenticator(createServiceTokenVerifier("tools", authority)),
    audit: { sink, denials },
  }),
});
const token = createServiceTokenInterceptor(authority.identity("orchestrator"), "tools");
const client = createClient(ToolExecutionService, mesh.transport("tools", [token]));

const principal = freezePrincipal(
  create(PrincipalSchema, {
    kind: PrincipalKind.KEY,
    subject: newId("key"),
    orgId: newId("org"),
    role: Role.OWNER,
    scopes: ["*"],
  }),
);
const context: RequestContext = {
  requestId: newId("req"),
  traceparent: "",
  source: "orchestrator",
  deadline: Number.POSITIVE_INFINITY,
  signal: new AbortController().signal,
  principal,
  callingService: undefined,
  idempotencyKey: "",
};
const options = onBehalfOf(context);
const [echo] = (await client.resolveTools({ names: ["echo"] }, options)).tools;
if (echo === undefined) throw new Error("there is no tool echo");
const { toolId, digest } = echo;
const runId = newId("run");

function request() {
  const stepId = newId("stp");
  const call = { toolId, digest, arguments: { text: "hello", n: 1 }, idempotencyKey: stepId, epoch: 1n };
  return { ...call, runId, stepId, attempt: 1 };
}

async function streamed(): Promise<void> {
  let isEnded = false;
  for await (const { part } of client.executeTool(request(), options)) isEnded = part.case === "result";
  if (!isEnded) throw new Error("the call has no result");
}

async function unary(): Promise<void> {
  const { outcome } = await client.executeToolUnary({ call: request() }, options);
  if (outcome.case !== "result") throw new Error("the call has no result");
}

/** The handler alone, with a request that was decoded already. */
const handler = tools.implementations.find(({ service }) => service.typeName === ToolExecutionService.typeName)
  ?.handlers as ServiceImpl<typeof ToolExecutionService>;
const handlerContext = {
  values: createContextValues().set(requestContextKey, context),
  signal: new AbortController().signal,
} as HandlerContext;

async function own(): Promise<void> {
  const message = create(ExecuteToolUnaryRequestSchema, { call: request() });
  const answer = handler.executeToolUnary(message, handlerContext);
  const { outcome } = answer instanceof Promise ? await answer : answer;
  if (outcome?.case !== "result") throw new Error("the call has no result");
}

/** What the benchmark itself does a call. */
async function nothing(): Promise<void> {
  const message = create(ExecuteToolUnaryRequestSchema, { call: request() });
  if (message.call?.toolId !== toolId) throw new Error("the message is not there");
}

/** Microseconds of CPU a call, with `concurrency` calls under way. */
async function measure(call: () => Promise<void>): Promise<number> {
  const before = process.cpuUsage();
  for (let done = 0; done < callsARound; done += concurrency) {
    await Promise.all(Array.from({ length: concurrency }, call));
    // Sockets and timers have their turn, as between the commits of an engine.
    await setImmediate();
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / callsARound;
}

const ways = { streamed, unary, own, nothing };
type Way = keyof typeof ways;
const samples: Record<Way, number[]> = { streamed: [], unary: [], own: [], nothing: [] };
for (let round = 0; round <= rounds; round++) {
  for (const way of Object.keys(ways) as Way[]) {
    const microseconds = await measure(ways[way]);
    // The first round warms up.
    if (round > 0) samples[way].push(microseconds);
  }
}
const cost = (way: Way): number => median(samples[way]) - median(samples.nothing);
const bench = "echo";
const peer = "required";
const comparisons: Comparison[] = [
  { bench, what: "the handler alone, µs a call", ours: cost("own"), peer, theirs: 25, target: "≤ 1" },
  {
    bench,
    what: "unary, µs of CPU a call",
    ours: cost("unary"),
    peer: "streamed",
    theirs: cost("streamed"),
    target: "",
  },
];
printReport(comparisons);

await denials.stop();
await tools.stop();
await database.close();
await mesh.close();
await telemetry.stop();
await postgres.stop();
await rm(dataDirectory, { recursive: true });
