import { create } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { createClient, createContextValues, type Interceptor } from "@connectrpc/connect";
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
import { type RequestContext, requestContextKey } from "../services/runtime/rpc/request-context.ts";
import { startTelemetry } from "../services/runtime/telemetry/telemetry.ts";
import { median, printReport } from "./report.ts";

// What the interceptors of the mesh cost: the same call in memory with all of
// them and with none, in turns.

const rounds = 7;
const callsARound = 20_000;
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
const denials = createDenialLog({ sink, log });
const principal = freezePrincipal(
  create(PrincipalSchema, { subject: newId("key"), orgId: newId("org"), role: Role.OWNER, scopes: ["*"] }),
);

async function clientWith(interceptors: readonly Interceptor[]) {
  const mesh = createMemoryMesh();
  const sessions = implement(SessionService, {
    getSession: (request: { sessionId: string }) => ({ session: { sessionId: request.sessionId, title: "bench" } }),
  } as never);
  await mesh.serve("orchestrator", { implementations: [sessions], interceptors });
  const token = createServiceTokenInterceptor(authority.identity("gateway"), "orchestrator");
  return createClient(SessionService, mesh.transport("orchestrator", [token]));
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

const context: RequestContext = {
  requestId: newId("req"),
  traceparent: "",
  source: "",
  deadline: Number.POSITIVE_INFINITY,
  signal: new AbortController().signal,
  principal,
  callingService: undefined,
  idempotencyKey: "",
};

async function microsecondsPerCall(client: typeof bare): Promise<number> {
  const startedAt = performance.now();
  for (let call = 0; call < callsARound; call++) {
    await client.getSession({ sessionId }, { contextValues: createContextValues().set(requestContextKey, context) });
  }
  return ((performance.now() - startedAt) * 1_000) / callsARound;
}

await microsecondsPerCall(bare);
await microsecondsPerCall(whole);
const bareSamples: number[] = [];
const wholeSamples: number[] = [];
for (let round = 0; round < rounds; round++) {
  bareSamples.push(await microsecondsPerCall(bare));
  wholeSamples.push(await microsecondsPerCall(whole));
}
const cost = median(wholeSamples) - median(bareSamples);
process.stdout.write(
  `a call in memory: ${median(bareSamples).toFixed(1)} µs, with all interceptors ${median(wholeSamples).toFixed(1)} µs\n`,
);
printReport([
  {
    bench: "interceptors",
    what: "all interceptors of the mesh, µs a call",
    ours: cost,
    peer: "required",
    theirs: 45,
    target: "≤ 1",
  },
]);
await denials.stop();
await telemetry.stop();
