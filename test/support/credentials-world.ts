import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DescService } from "@bufbuild/protobuf";
import { ApiKeyService } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { AuditService } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { AuthenticationService, IdentityService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { TokenService } from "@cadre/gen/cadre/credentials/v1/token_pb";
import {
  type Client,
  createClient,
  createRouterTransport,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import pg from "pg";
import { pino } from "pino";
import { credentialsSettings } from "../../services/credentials/config.ts";
import { type RunningCredentials, startCredentials } from "../../services/credentials/main.ts";
import { forwardService } from "../../services/gateway/forward/forward-service.ts";
import { type Environment, parseSettings } from "../../services/runtime/config/settings.ts";
import { edgeRequestKey } from "../../services/runtime/edge/edge-request.ts";
import { createBearerAuthenticator } from "../../services/runtime/identity/bearer-authenticator.ts";
import { type ChangeFeed, createChangeFeed } from "../../services/runtime/identity/change-feed.ts";
import { createLimits } from "../../services/runtime/identity/limits.ts";
import { createLocalAuthority } from "../../services/runtime/identity/service-identity.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { edgeInterceptors } from "../../services/runtime/interceptor/chain.ts";
import { createMemoryMesh } from "../../services/runtime/memory/memory-mesh.ts";
import { createPlatform } from "../../services/runtime/platform/create-platform.ts";
import type { Platform } from "../../services/runtime/platform/platform.ts";
import { startTelemetry } from "../../services/runtime/telemetry/telemetry.ts";
import { createTestDatabase } from "./postgres.ts";

export interface CredentialsWorldOptions {
  readonly settings?: Environment;
  /** Changes how the edge hears of changes, to take a protection away. */
  readonly feed?: (feed: ChangeFeed) => ChangeFeed;
  /** How many refused credentials an address may present in a minute. */
  readonly failuresPerMinute?: number;
  /** Another world whose database and keys are used: two replicas of one installation. */
  readonly replicaOf?: CredentialsWorld;
}

/** The real credentials service over a mesh in memory, behind the interceptors of the edge. */
export interface CredentialsWorld {
  readonly platform: Platform;
  readonly credentials: RunningCredentials;
  readonly changes: ChangeFeed;
  readonly adminKey: string;
  readonly dataDirectory: string;
  readonly databaseUrl: string;
  /** Every line that was logged, as text. */
  readonly lines: readonly string[];
  /** A client from outside, with a credential in `Authorization: Bearer`; without one for `undefined`. */
  client<S extends DescService>(service: S, credential: string | undefined, source?: string): Client<S>;
  /** SQL as the database's owner, whom no policy binds. */
  sql<R extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<R[]>;
  stop(): Promise<void>;
}

export async function startCredentialsWorld(options: CredentialsWorldOptions = {}): Promise<CredentialsWorld> {
  const { replicaOf } = options;
  const database =
    replicaOf === undefined ? await createTestDatabase() : { url: replicaOf.databaseUrl, drop: async () => {} };
  const dataDirectory = replicaOf?.dataDirectory ?? mkdtempSync(join(tmpdir(), "credentials-"));
  const lines: string[] = [];
  const log = pino({ level: "debug" }, { write: (line: string) => void lines.push(line) });
  const processId = newId("evt");
  const telemetry = await startTelemetry({
    serviceName: "test",
    version: "0.0.0",
    processId,
    otlpEndpoint: undefined,
    sampleRatio: 0,
  });
  const authority = createLocalAuthority();
  const mesh = createMemoryMesh();
  const platform = createPlatform({
    mode: "embedded",
    dataDirectory,
    version: "0.0.0",
    databaseUrl: database.url,
    processId,
    reflection: false,
    log,
    telemetry,
    mesh,
    identityOf: (name) => authority.identity(name),
    trust: authority,
  });
  const credentials = await startCredentials(platform, parseSettings(credentialsSettings, options.settings ?? {}));
  const authentication = platform.client("gateway", "credentials", AuthenticationService);
  const trueFeed = createChangeFeed({ client: authentication, processId, log });
  const changes = options.feed?.(trueFeed) ?? trueFeed;
  const edge = createEdge(platform, changes, options.failuresPerMinute ?? 1_000_000);
  await trueFeed.whenFresh();
  const pool = new pg.Pool({ connectionString: database.url, max: 2 });
  // A pool has ended before its connections have, and the database is dropped under those.
  pool.on("error", () => undefined);
  return {
    platform,
    credentials,
    changes: trueFeed,
    adminKey: readFileSync(join(dataDirectory, "admin.key"), "utf8").trim(),
    dataDirectory,
    databaseUrl: database.url,
    lines,
    client: (service, credential, source = "192.0.2.1") => createClient(service, withHeaders(edge, credential, source)),
    async sql(text, values) {
      const { rows } = await pool.query(text, values);
      return rows;
    },
    async stop() {
      await trueFeed.stop();
      await credentials.stop(0);
      await platform.stop();
      await mesh.close();
      await telemetry.stop();
      await pool.end();
      await database.drop();
      if (replicaOf === undefined) rmSync(dataDirectory, { recursive: true });
    },
  };
}

function createEdge(platform: Platform, changes: ChangeFeed, failuresPerMinute: number): Transport {
  const authentication = platform.client("gateway", "credentials", AuthenticationService);
  const source: Interceptor = (next) => (request) => {
    request.contextValues.set(edgeRequestKey, {
      requestId: newId("req"),
      source: request.header.get("x-test-source") ?? "",
      traceparent: "",
    });
    return next(request);
  };
  const interceptors = edgeInterceptors({
    host: "gateway",
    tracer: platform.tracer,
    meter: platform.meter,
    log: platform.log,
    rules: platform.rules,
    authenticator: createBearerAuthenticator({ authentication, changes, log: platform.log, failuresPerMinute }),
    limits: createLimits({ authentication, changes, log: platform.log }),
    audit: platform.audit("gateway"),
  });
  return createRouterTransport(
    (router) => {
      for (const service of [ApiKeyService, TokenService, IdentityService, AuditService]) {
        const peer = platform.client<DescService>("gateway", "credentials", service);
        router.service(service, forwardService(service, peer).handlers);
      }
    },
    { router: { interceptors: [source, ...interceptors] } },
  );
}

function withHeaders(transport: Transport, credential: string | undefined, source: string): Transport {
  const withOwn = (given: HeadersInit | undefined): Headers => {
    const headers = new Headers(given);
    if (credential !== undefined && !headers.has("authorization")) headers.set("authorization", `Bearer ${credential}`);
    headers.set("x-test-source", source);
    return headers;
  };
  return {
    unary: (method, signal, timeoutMs, header, input, values) =>
      transport.unary(method, signal, timeoutMs, withOwn(header), input, values),
    stream: (method, signal, timeoutMs, header, input, values) =>
      transport.stream(method, signal, timeoutMs, withOwn(header), input, values),
  };
}
