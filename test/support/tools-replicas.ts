import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { create, type DescService, type MessageInitShape } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { type Principal, PrincipalKind, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { type Client, createClient, type Interceptor } from "@connectrpc/connect";
import { connectNodeAdapter, createConnectTransport } from "@connectrpc/connect-node";
import pino from "pino";
import { type LimitName, limitDefinitions } from "../../services/credentials/domain/limit.ts";
import type { Denial } from "../../services/runtime/audit/denial-log.ts";
import { parseSettings } from "../../services/runtime/config/settings.ts";
import { decodePrincipal, encodePrincipal } from "../../services/runtime/identity/principal.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { errors } from "../../services/runtime/interceptor/errors.ts";
import { validation } from "../../services/runtime/interceptor/validation.ts";
import { createPageTokens } from "../../services/runtime/page/page-token.ts";
import type { Database } from "../../services/runtime/postgres/database.ts";
import { migrate } from "../../services/runtime/postgres/migrator.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { requestContextKey } from "../../services/runtime/rpc/request-context.ts";
import type { WorkerPrincipals } from "../../services/tools/app/worker-principals.ts";
import { toolsSettings } from "../../services/tools/config.ts";
import { createTools, type Tools } from "../../services/tools/create-tools.ts";
import { migrations } from "../../services/tools/store/migrations/index.ts";
import type { ToolsSchema } from "../../services/tools/store/schema.ts";
import { createTestDatabase, type TestDatabase } from "./postgres.ts";

/** One replica of the tools service behind a real HTTP server. */
export interface ToolsReplica {
  readonly url: string;
  readonly database: Database<ToolsSchema>;
  /** A client that acts as a principal. */
  client<S extends DescService>(service: S, principal: Principal): Client<S>;
  /** Cuts all connections, as a crash of the replica or of the network would. */
  cutConnections(): void;
  /** Tells workers to go elsewhere. */
  drain(): void;
  stop(): Promise<void>;
}

export interface ToolsReplicas {
  readonly database: TestDatabase;
  readonly replicas: readonly ToolsReplica[];
  /** What was refused on the way out. */
  readonly denials: readonly Denial[];
  stop(): Promise<void>;
}

export interface ToolsReplicasOptions {
  readonly settings?: Readonly<Record<string, string>>;
  readonly principals?: WorkerPrincipals;
  /** Limits of every org, by name; read anew each time. The defaults unless said. */
  readonly limits?: Readonly<Record<string, number>>;
}

const principalHeader = "x-test-principal";

/** Several replicas of the tools service over one fresh database. */
export async function startToolsReplicas(count: number, options: ToolsReplicasOptions = {}): Promise<ToolsReplicas> {
  const database = await createTestDatabase();
  const log = pino({ level: process.env["TEST_LOG"] ?? "silent" });
  await migrate({ url: database.url, service: "tools", migrations, log });
  const denials: Denial[] = [];
  const replicas: ToolsReplica[] = [];
  for (let index = 0; index < count; index++) {
    replicas.push(await startReplica(`replica-${index}`, database.url, log, denials, options));
  }
  return {
    database,
    replicas,
    denials,
    async stop() {
      await Promise.all(replicas.map((replica) => replica.stop()));
      await database.drop();
    },
  };
}

/** A principal of an org; a developer that may serve every tool, unless said otherwise. */
export function principalOf(orgId: string, fields: MessageInitShape<typeof PrincipalSchema> = {}): Principal {
  return create(PrincipalSchema, {
    kind: PrincipalKind.KEY,
    role: Role.DEVELOPER,
    subject: newId("key"),
    orgId,
    scopes: ["tools.read", "tools.write", "tools.call", "tools.serve"],
    tools: ["*"],
    ...fields,
  });
}

/** The headers by which a process of its own acts as a principal. */
export function headersOf(principal: Principal): Record<string, string> {
  return { [principalHeader]: encodePrincipal(principal) };
}

async function startReplica(
  replicaId: string,
  databaseUrl: string,
  log: pino.Logger,
  denials: Denial[],
  options: ToolsReplicasOptions,
): Promise<ToolsReplica> {
  const database = openDatabase<ToolsSchema>({ url: databaseUrl, service: "tools", log, maxConnections: 4 });
  const tools = await createTools({
    config: parseSettings(toolsSettings, options.settings ?? {}),
    database,
    limits: { get: (_, name) => options.limits?.[name] ?? limitDefinitions[name as LimitName].default },
    principals: options.principals ?? { assertMayAct: async () => undefined, onChange: () => () => undefined },
    denials: {
      record: async (denial) => void denials.push(denial),
      flush: async () => undefined,
      stop: async () => undefined,
    },
    pages: createPageTokens(new Uint8Array(32)),
    log,
    replicaId,
  });
  const server = await listen(tools, log);
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url,
    database,
    client: (service, principal) => createClient(service, transportTo(url, headersOf(principal))),
    cutConnections: () => server.closeAllConnections(),
    drain: () => tools.drain(),
    async stop() {
      tools.drain();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await tools.stop();
      await database.close();
    },
  };
}

async function listen(tools: Tools, log: pino.Logger): Promise<Server> {
  const adapter = connectNodeAdapter({
    routes: (router) => {
      for (const { service, handlers } of tools.implementations) router.service(service, handlers);
    },
    interceptors: [testContext, errors(log), validation()],
  });
  const server = createServer(adapter);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

function transportTo(url: string, headers: Readonly<Record<string, string>>) {
  const authenticate: Interceptor = (next) => (request) => {
    for (const [name, value] of Object.entries(headers)) request.header.set(name, value);
    return next(request);
  };
  return createConnectTransport({ baseUrl: url, httpVersion: "1.1", interceptors: [authenticate] });
}

/** Stands in for telemetry and authentication: believes what the caller says of itself. */
const testContext: Interceptor = (next) => (request) => {
  const encoded = request.header.get(principalHeader);
  request.contextValues.set(requestContextKey, {
    requestId: newId("req"),
    traceparent: "",
    source: "test",
    deadline: Number.POSITIVE_INFINITY,
    signal: request.signal,
    principal: encoded === null ? undefined : decodePrincipal(encoded),
    callingService: undefined,
    idempotencyKey: request.header.get("idempotency-key") ?? "",
  });
  return next(request);
};
