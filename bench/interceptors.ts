import { create } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { PrincipalKind, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import type { Client, Interceptor } from "@connectrpc/connect";
import { metrics, trace } from "@opentelemetry/api";
import pino from "pino";
import { createDenialLog } from "../services/runtime/audit/denial-log.ts";
import { freezePrincipal } from "../services/runtime/identity/principal.ts";
import { createLocalAuthority } from "../services/runtime/identity/service-identity.ts";
import { createServiceTokenVerifier } from "../services/runtime/identity/service-token.ts";
import { createServiceTokenAuthenticator } from "../services/runtime/identity/service-token-authenticator.ts";
import { createServiceTokenInterceptor } from "../services/runtime/identity/service-token-interceptor.ts";
import { newId } from "../services/runtime/ids/id.ts";
import { accessRules } from "../services/runtime/interceptor/access-rule.ts";
import { meshInterceptors } from "../services/runtime/interceptor/chain.ts";
import { createMemoryMesh } from "../services/runtime/memory/memory-mesh.ts";
import { implement } from "../services/runtime/rpc/implementation.ts";
import { createMeshClient } from "../services/runtime/rpc/mesh-client.ts";
import { onBehalfOf, type RequestContext } from "../services/runtime/rpc/request-context.ts";
import { clientSpan } from "../services/runtime/telemetry/client-span.ts";
import { startTelemetry } from "../services/runtime/telemetry/telemetry.ts";
import { newSpanContext, toTraceparent } from "../services/runtime/telemetry/traceparent.ts";
import { median, printReport } from "./report.ts";

// What a call between two services of one process costs, encoding and decoding
// included, and what of that the interceptors of the mesh do: the same call in
// memory with all of them and with none, in turns. Counted is the time of the
// processor, so that what else the machine does weighs less.

const rounds = Number(process.env["BENCH_ROUNDS"] ?? 9);
const callsARound = 10_000;
const concurrent = 16;
const sessionId = newId("ses");

const telemetry = await startTelemetry({
  serviceName: "bench",
  version: "0",
  processId: "bench",
  otlpEndpoint: undefined,
  sampleRatio: 0,
});
const log = pino({ level: "info" }, { write() {} });
const authority = createLocalAuthority();
const sink = { append: async () => {} };
const denials = createDenialLog({ sink, log, meter: metrics.getMeter("bench") });
const principal = freezePrincipal(
  create(PrincipalSchema, {
    kind: PrincipalKind.KEY,
    subject: newId("key"),
    orgId: newId("org"),
    role: Role.OWNER,
    scopes: ["*"],
  }),
);

async function clientWith(interceptors: readonly Interceptor[]) {
  const mesh = createMemoryMesh();
  const sessions = implement(SessionService, {
    getSession: (request: { sessionId: string }) => ({ session: { sessionId: request.sessionId, title: "bench" } }),
    async *streamEvents() {
      yield { event: { seq: 1n } };
    },
  } as never);
  await mesh.serve("orchestrator", { implementations: [sessions], interceptors });
  const token = createServiceTokenInterceptor(authority.identity("gateway"), "orchestrator");
  return createMeshClient(
    SessionService,
    mesh.transport("orchestrator", [token, clientSpan(trace.getTracer("bench"))]),
  );
}

const bare = await clientWith([]);
const whole = await clientWith(
  meshInterceptors({
    host: "orchestrator",
    tracer: trace.getTracer("bench"),
    meter: metrics.getMeter("bench"),
    log,
    rules: accessRules(),
    authenticator: createServiceTokenAuthenticator(createServiceTokenVerifier("orchestrator", authority)),
    audit: { sink, denials },
  }),
);

/** A request that calls are made for. */
function newRequest(): RequestContext {
  return {
    requestId: newId("req"),
    traceparent: toTraceparent(newSpanContext()),
    source: "203.0.113.7",
    deadline: Date.now() + 30_000,
    signal: new AbortController().signal,
    principal,
    callingService: undefined,
    idempotencyKey: "",
  };
}

type Sessions = Client<typeof SessionService>;

async function unary(client: Sessions, context: RequestContext): Promise<void> {
  await client.getSession({ sessionId }, onBehalfOf(context));
}

async function stream(client: Sessions, context: RequestContext): Promise<void> {
  for await (const _ of client.streamEvents({ sessionId }, onBehalfOf(context)));
}

/** Time of the processor a call, in microseconds. */
async function cost(call: typeof unary, client: Sessions): Promise<number> {
  const before = process.cpuUsage();
  let calls = 0;
  const worker = async (): Promise<void> => {
    const context = newRequest();
    while (calls++ < callsARound) await call(client, context);
  };
  await Promise.all(Array.from({ length: concurrent }, worker));
  const { user, system } = process.cpuUsage(before);
  return (user + system) / callsARound;
}

const measured = [
  { what: "a unary call", call: unary, client: bare, samples: [] as number[] },
  { what: "a unary call, all interceptors", call: unary, client: whole, samples: [] as number[] },
  { what: "a stream of one message", call: stream, client: bare, samples: [] as number[] },
  { what: "a stream of one message, all interceptors", call: stream, client: whole, samples: [] as number[] },
];
for (let round = -2; round < rounds; round++) {
  for (const { call, client, samples } of measured) {
    const microseconds = await cost(call, client);
    if (round >= 0) samples.push(microseconds);
  }
}
const [unaryBare, unaryWhole, , streamWhole] = measured.map(({ samples }) => median(samples));
for (const { what, samples } of measured) process.stdout.write(`${what}: ${median(samples).toFixed(1)} µs\n`);

const required = { bench: "interceptors", peer: "required", target: "≤ 1" };
printReport([
  {
    ...required,
    what: "all interceptors of the mesh, µs a call",
    ours: (unaryWhole ?? Number.NaN) - (unaryBare ?? Number.NaN),
    theirs: 45,
  },
  { ...required, what: "a unary call in memory, µs", ours: unaryWhole ?? Number.NaN, theirs: 35 },
  { ...required, what: "a stream of one message in memory, µs", ours: streamWhole ?? Number.NaN, theirs: 50 },
]);
await denials.stop();
await telemetry.stop();
