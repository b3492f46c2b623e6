import { tmpdir } from "node:os";
import type { AuthenticationService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { ToolService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import type { ServiceImpl } from "@connectrpc/connect";
import { pino } from "pino";
import { gatewaySettings } from "../../services/gateway/config.ts";
import { type RunningGateway, startGateway } from "../../services/gateway/main.ts";
import { type Environment, parseSettings } from "../../services/runtime/config/settings.ts";
import { createLocalAuthority, type LocalAuthority } from "../../services/runtime/identity/service-identity.ts";
import type { Logger } from "../../services/runtime/log/log.ts";
import { createMemoryMesh } from "../../services/runtime/memory/memory-mesh.ts";
import type { Mesh, MeshServer } from "../../services/runtime/mesh/mesh.ts";
import { createPlatform } from "../../services/runtime/platform/create-platform.ts";
import type { Platform } from "../../services/runtime/platform/platform.ts";
import { type Implementation, implement } from "../../services/runtime/rpc/implementation.ts";
import { startTelemetry } from "../../services/runtime/telemetry/telemetry.ts";
import { createFakeCredentials, type FakeCredentials } from "./fake-credentials.ts";

export interface GatewayWorldOptions {
  /** Handlers of the orchestrator's sessions; the others are unimplemented. */
  readonly sessions?: Partial<ServiceImpl<typeof SessionService>>;
  /** Handlers of the tools service; the others are unimplemented. */
  readonly tools?: Partial<ServiceImpl<typeof ToolService>>;
  /** What credentials answers otherwise than `createFakeCredentials` does. */
  readonly authentication?: Partial<ServiceImpl<typeof AuthenticationService>>;
  /** Settings of the gateway; the ports are free ones. */
  readonly settings?: Environment;
  /** The least severe log lines kept in `lines`; `silent` by default. */
  readonly logLevel?: string;
  /** The log to use instead; then nothing is kept. */
  readonly log?: Logger;
}

/** The real gateway over a mesh in memory, with fakes behind it. */
export interface GatewayWorld {
  readonly gateway: RunningGateway;
  readonly platform: Platform;
  readonly credentials: FakeCredentials;
  /** Closes the server of credentials; `serveCredentials` brings it back. */
  stopCredentials(): Promise<void>;
  serveCredentials(): Promise<void>;
  readonly mesh: Mesh;
  readonly authority: LocalAuthority;
  /** What was logged. */
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  /** The tools' server: close it to take a peer away. */
  readonly tools: MeshServer;
  stop(): Promise<void>;
}

/** Starts it with everything that a process has but PostgreSQL. */
export async function startGatewayWorld(options: GatewayWorldOptions = {}): Promise<GatewayWorld> {
  const lines: Record<string, unknown>[] = [];
  const log =
    options.log ??
    pino(
      { level: options.logLevel ?? "silent" },
      { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) },
    );
  const telemetry = await startTelemetry({
    serviceName: "test",
    version: "1.2.3",
    processId: "test",
    otlpEndpoint: undefined,
    sampleRatio: 0,
  });
  const authority = createLocalAuthority();
  const mesh = createMemoryMesh();
  const platform = createPlatform({
    mode: "embedded",
    dataDirectory: tmpdir(),
    version: "1.2.3",
    databaseUrl: "",
    processId: "test",
    reflection: true,
    log,
    telemetry,
    mesh,
    identityOf: (name) => authority.identity(name),
    trust: authority,
  });
  const credentials = createFakeCredentials(options.authentication);
  const serve = (
    name: "credentials" | "events" | "orchestrator" | "registry" | "tools",
    implementations: readonly Implementation[],
  ) => platform.serve(name, { implementations, dependencies: [] });
  const servers = await Promise.all([
    serve("credentials", credentials.implementations),
    serve("orchestrator", [implement(SessionService, (options.sessions ?? {}) as ServiceImpl<typeof SessionService>)]),
    serve("tools", [implement(ToolService, (options.tools ?? {}) as ServiceImpl<typeof ToolService>)]),
    serve("registry", []),
    serve("events", []),
  ]);
  let credentialsServer = servers[0];
  const gateway = await startGateway(
    platform,
    parseSettings(gatewaySettings, { CADRE_PORT: "0", CADRE_ADMIN_PORT: "0", ...options.settings }),
  );
  return {
    gateway,
    platform,
    mesh,
    authority,
    stopCredentials: () => credentialsServer.close(0),
    async serveCredentials() {
      credentialsServer = await serve("credentials", credentials.implementations);
    },
    credentials,
    lines,
    tools: servers[2],
    async stop() {
      await gateway.stop(0);
      await Promise.all([credentialsServer, ...servers].map((server) => server.close(0)));
      await platform.stop();
      await mesh.close();
      await telemetry.stop();
    },
  };
}
