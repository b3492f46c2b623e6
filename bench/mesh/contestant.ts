import type { KeyObject } from "node:crypto";
import { createSecureServer, createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import type { SecureContextOptions } from "node:tls";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { PrincipalKind, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import {
  type GetSessionRequest,
  GetSessionRequestSchema,
  type GetSessionResponse,
  GetSessionResponseSchema,
  SessionService,
} from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { createClient, createContextValues, type ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport } from "@connectrpc/connect-node";
import {
  type ChannelCredentials,
  Client,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData,
} from "@grpc/grpc-js";
import { metrics, trace } from "@opentelemetry/api";
import pino from "pino";
import { createDenialLog } from "../../services/runtime/audit/denial-log.ts";
import { freezePrincipal } from "../../services/runtime/identity/principal.ts";
import type { MeshTrust, ServiceIdentity } from "../../services/runtime/identity/service-identity.ts";
import { createServiceTokenVerifier } from "../../services/runtime/identity/service-token.ts";
import { createServiceTokenAuthenticator } from "../../services/runtime/identity/service-token-authenticator.ts";
import { createServiceTokenInterceptor } from "../../services/runtime/identity/service-token-interceptor.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { accessRules } from "../../services/runtime/interceptor/access-rule.ts";
import { meshInterceptors } from "../../services/runtime/interceptor/chain.ts";
import { createGrpcMesh } from "../../services/runtime/mesh/grpc-mesh.ts";
import type { TlsMaterial } from "../../services/runtime/mesh/tls.ts";
import { type Implementation, implement } from "../../services/runtime/rpc/implementation.ts";
import { type RequestContext, requestContextKey } from "../../services/runtime/rpc/request-context.ts";
import { clientSpan } from "../../services/runtime/telemetry/client-span.ts";
import { startTelemetry } from "../../services/runtime/telemetry/telemetry.ts";
import { newSpanContext, toTraceparent } from "../../services/runtime/telemetry/traceparent.ts";

/** What is compared: the same typed call, by the same codec, with the same deadline. */
export const contestants = ["ours", "ours, no interceptors", "grpc-js", "connect-node"] as const;
export type Contestant = (typeof contestants)[number];

/** One call; resolves when its typed answer is there. */
export type Call = () => Promise<unknown>;

const timeoutMs = 30_000;
const log = pino({ level: "info" }, { write() {} });

async function telemetry() {
  await startTelemetry({
    serviceName: "bench",
    version: "0",
    processId: "bench",
    otlpEndpoint: undefined,
    sampleRatio: 0,
  });
  return { tracer: trace.getTracer("bench"), meter: metrics.getMeter("bench") };
}

const handlers = {
  getSession: ({ sessionId }: GetSessionRequest) => ({
    session: { sessionId, agentId: sessionId.replace("ses_", "agt_"), title: "A session with a title" },
  }),
} as unknown as ServiceImpl<typeof SessionService>;

function answer({ sessionId }: GetSessionRequest): GetSessionResponse {
  return create(GetSessionResponseSchema, {
    session: { sessionId, agentId: sessionId.replace("ses_", "agt_"), title: "A session with a title" },
  });
}

const path = `/${SessionService.typeName}/GetSession`;
const definition = {
  path,
  requestStream: false,
  responseStream: false,
  requestSerialize: (message: GetSessionRequest) => Buffer.from(toBinary(GetSessionRequestSchema, message)),
  requestDeserialize: (bytes: Buffer) => fromBinary(GetSessionRequestSchema, bytes),
  responseSerialize: (message: GetSessionResponse) => Buffer.from(toBinary(GetSessionResponseSchema, message)),
  responseDeserialize: (bytes: Buffer) => fromBinary(GetSessionResponseSchema, bytes),
} as const;

/**
 * Serves a contestant and returns its address.
 *
 * @param trust is for ours, which authenticates its caller
 * @param tls mutual TLS 1.3; none: plaintext
 */
export async function serve(contestant: Contestant, trust: MeshTrust, tls?: TlsMaterial): Promise<string> {
  switch (contestant) {
    case "ours":
    case "ours, no interceptors": {
      const mesh = createGrpcMesh({
        name: "orchestrator",
        listen: "127.0.0.1:0",
        addresses: {},
        log,
        ...tlsOption(tls),
      });
      const sink = { append: async () => {} };
      const server = await mesh.serve("orchestrator", {
        implementations: [implement(SessionService, handlers) as Implementation],
        interceptors:
          contestant === "ours"
            ? meshInterceptors({
                host: "orchestrator",
                ...(await telemetry()),
                log,
                rules: accessRules(),
                authenticator: createServiceTokenAuthenticator(createServiceTokenVerifier("orchestrator", trust)),
                audit: { sink, denials: createDenialLog({ sink, log, meter: metrics.getMeter("bench") }) },
              })
            : [],
      });
      return server.address;
    }
    case "grpc-js": {
      const server = new Server();
      server.addService(
        { getSession: definition },
        {
          getSession: (
            call: ServerUnaryCall<GetSessionRequest, GetSessionResponse>,
            callback: sendUnaryData<GetSessionResponse>,
          ) => callback(null, answer(call.request)),
        },
      );
      const port = await new Promise<number>((resolve, reject) => {
        server.bindAsync("127.0.0.1:0", grpcServerCredentials(tls), (error, bound) =>
          error === null ? resolve(bound) : reject(error),
        );
      });
      return `127.0.0.1:${port}`;
    }
    case "connect-node": {
      const listener = connectNodeAdapter({ routes: ({ service }) => service(SessionService, handlers) });
      const server =
        tls === undefined
          ? createServer(listener)
          : createSecureServer({ ...nodeTls(tls), requestCert: true, rejectUnauthorized: true }, listener);
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      return `127.0.0.1:${(server.address() as AddressInfo).port}`;
    }
  }
}

/**
 * Connects to a contestant.
 *
 * @param privateKey signs the service tokens of ours
 * @param tls mutual TLS 1.3; none: plaintext
 */
export async function connect(
  contestant: Contestant,
  address: string,
  privateKey: KeyObject,
  tls?: TlsMaterial,
): Promise<Call> {
  const sessionId = newId("ses");
  switch (contestant) {
    case "ours":
    case "ours, no interceptors": {
      const signingKey = { privateKey, proof: { kid: "gateway" } };
      const identity: ServiceIdentity = { name: "gateway", current: () => signingKey };
      const { tracer } = await telemetry();
      const mesh = createGrpcMesh({
        name: "gateway",
        listen: "127.0.0.1:0",
        addresses: { orchestrator: [address] },
        log,
        ...tlsOption(tls),
      });
      const interceptors =
        contestant === "ours" ? [createServiceTokenInterceptor(identity, "orchestrator"), clientSpan(tracer)] : [];
      const client = createClient(SessionService, mesh.transport("orchestrator", interceptors));
      const scope = { ...context, principal };
      return () =>
        client.getSession(
          { sessionId },
          { timeoutMs, contextValues: createContextValues().set(requestContextKey, scope) },
        );
    }
    case "grpc-js": {
      const client = new Client(address, grpcClientCredentials(tls));
      const { requestSerialize, responseDeserialize } = definition;
      return () =>
        new Promise((resolve, reject) => {
          client.makeUnaryRequest(
            path,
            requestSerialize,
            responseDeserialize,
            create(GetSessionRequestSchema, { sessionId }),
            new Metadata(),
            { deadline: Date.now() + timeoutMs },
            (error, response) => (error === null ? resolve(response) : reject(error)),
          );
        });
    }
    case "connect-node": {
      const client = createClient(
        SessionService,
        createGrpcTransport(
          tls === undefined
            ? { baseUrl: `http://${address}` }
            : { baseUrl: `https://${address}`, nodeOptions: nodeTls(tls) },
        ),
      );
      return () => client.getSession({ sessionId }, { timeoutMs });
    }
  }
}

function tlsOption(tls: TlsMaterial | undefined): { tls?: TlsMaterial } {
  return tls === undefined ? {} : { tls };
}

function nodeTls({ authority, certificate, privateKey }: TlsMaterial): SecureContextOptions {
  return { ca: authority, cert: certificate, key: privateKey, minVersion: "TLSv1.3" };
}

function grpcServerCredentials(tls: TlsMaterial | undefined): ServerCredentials {
  if (tls === undefined) return ServerCredentials.createInsecure();
  const pair = { cert_chain: Buffer.from(tls.certificate), private_key: Buffer.from(tls.privateKey) };
  return ServerCredentials.createSsl(Buffer.from(tls.authority), [pair], true);
}

function grpcClientCredentials(tls: TlsMaterial | undefined): ChannelCredentials {
  if (tls === undefined) return credentials.createInsecure();
  const [authority, key, certificate] = [tls.authority, tls.privateKey, tls.certificate].map((pem) => Buffer.from(pem));
  return credentials.createSsl(authority, key, certificate);
}

const principal = freezePrincipal(
  create(PrincipalSchema, {
    kind: PrincipalKind.KEY,
    subject: newId("key"),
    orgId: newId("org"),
    role: Role.OWNER,
    scopes: ["*"],
  }),
);

/** What the gateway knows of a stranger's request that it calls for. */
const context: RequestContext = {
  requestId: newId("req"),
  traceparent: toTraceparent(newSpanContext()),
  source: "203.0.113.7",
  deadline: Number.POSITIVE_INFINITY,
  signal: new AbortController().signal,
  principal: undefined,
  callingService: undefined,
  idempotencyKey: "",
};
