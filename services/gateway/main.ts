import { readFile } from "node:fs/promises";
import { type DescService, getOption } from "@bufbuild/protobuf";
import { AuthenticationService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { ReadinessService } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { host } from "@cadre/gen/cadre/options/v1/options_pb";
import { ConfigurationError } from "../runtime/config/settings.ts";
import { createEdgeServer, type EdgeTls } from "../runtime/edge/edge-server.ts";
import { createHealthRegistry } from "../runtime/health/health-registry.ts";
import { healthService } from "../runtime/health/health-service.ts";
import { createBearerAuthenticator } from "../runtime/identity/bearer-authenticator.ts";
import { createChangeFeed } from "../runtime/identity/change-feed.ts";
import { clockDependency } from "../runtime/identity/clock-dependency.ts";
import { createLimits } from "../runtime/identity/limits.ts";
import { edgeInterceptors } from "../runtime/interceptor/chain.ts";
import type { ServiceName } from "../runtime/mesh/mesh.ts";
import type { Platform, RunningService } from "../runtime/platform/platform.ts";
import { reflectionServices } from "../runtime/reflection/reflection-service.ts";
import type { Implementation } from "../runtime/rpc/implementation.ts";
import { createAdminHandler } from "./admin/admin-handler.ts";
import { startAdminServer } from "./admin/admin-server.ts";
import { createCpuProfiler } from "./admin/cpu-profile.ts";
import { createEdgeAudit } from "./app/edge-audit.ts";
import { observeEdge } from "./app/observe-edge.ts";
import { watchHealth } from "./app/watch-health.ts";
import type { GatewayConfig } from "./config.ts";
import { loadContract } from "./contract/load-contract.ts";
import { createGateway } from "./create-gateway.ts";

/** A started gateway. */
export interface RunningGateway extends RunningService {
  /** Where callers reach it, for example `http://127.0.0.1:8010`. */
  readonly url: string;
  /** Where the machine's operator reaches it, for example `http://127.0.0.1:8011`. */
  readonly adminUrl: string;
}

const self: ServiceName = "gateway";
/** How long a stream that cannot be resumed may go on when the process stops. */
const streamGraceMs = 2_000;

/**
 * Starts the one door for callers outside, and the operator's own.
 *
 * @throws ConfigurationError if settings contradict each other
 * @throws PortInUseError naming who holds a port, where that can be known
 */
export async function startGateway(platform: Platform, config: GatewayConfig): Promise<RunningGateway> {
  const log = platform.log.child({ component: self });
  const tls = await readTls(config);
  const contract = await loadContract();

  const authentication = platform.client(self, "credentials", AuthenticationService);
  const changes = createChangeFeed({ client: authentication, processId: platform.processId, log });
  const interceptors = edgeInterceptors({
    host: self,
    tracer: platform.tracer,
    meter: platform.meter,
    log,
    authenticator: createBearerAuthenticator({ authentication, changes, log }),
    limits: createLimits({ authentication, changes, log }),
    rules: platform.rules,
    audit: platform.audit(self),
  });

  const edgeAudit = createEdgeAudit(platform.audit(self).denials);
  const limits = {
    maxConnections: config.CADRE_MAX_CONNECTIONS,
    maxConnectionsPerSource: config.CADRE_MAX_CONNECTIONS_PER_SOURCE,
  };
  const endEvents = new AbortController();
  const endStreams = new AbortController();
  const registry = createHealthRegistry();
  const { handler, health } = createGateway({
    contract,
    client: (peer, service) => platform.client(self, peer as ServiceName, service),
    readiness: (peer) => platform.client(self, peer as ServiceName, ReadinessService),
    interceptors,
    dependencies: [
      clockDependency(changes),
      ...platform.contracts.watch(
        self,
        contract.publicServices.filter((service) => getOption(service, host) === self).map(({ file }) => file),
        [],
      ),
    ],
    own: protocolServices(platform, contract.publicServices, healthService(registry)),
    log,
    version: platform.version,
    mode: platform.mode,
    corsOrigins: config.CADRE_CORS_ORIGINS,
    renderMetrics: () => platform.renderMetrics(),
    onRefused: edgeAudit.onRefused,
    limits,
    endings: { events: endEvents.signal, others: endStreams.signal },
  });

  const edge = await createEdgeServer({
    listen: { host: config.CADRE_HOST, port: config.CADRE_PORT },
    tls,
    log,
    limits,
    handler,
    onAbuse: edgeAudit.onAbuse,
    authorities: config.CADRE_AUTHORITIES,
    trustedProxies: config.CADRE_TRUSTED_PROXIES,
  });
  observeEdge(platform.meter, edge);
  const adminHandler = createAdminHandler({
    health,
    renderMetrics: () => platform.renderMetrics(),
    profiler: createCpuProfiler(),
    log: log.child({ component: "admin" }),
  });
  const admin = await startAdminServer(config.CADRE_ADMIN_PORT, adminHandler).catch(async (error: unknown) => {
    await Promise.all([edge.close(0), changes.stop()]);
    throw error;
  });
  const stopWatching = watchHealth({ health, registry, services: contract.publicServices });
  log.info({ url: edge.address, admin_url: admin.address }, "listening");

  let stopping: Promise<void> | undefined;
  async function stop(graceMs: number): Promise<void> {
    stopWatching();
    endEvents.abort();
    const timer = setTimeout(() => endStreams.abort(), streamGraceMs);
    await edge.close(graceMs);
    clearTimeout(timer);
    await Promise.all([admin.close(), changes.stop()]);
  }
  return {
    name: self,
    url: edge.address,
    adminUrl: admin.address,
    stop(graceMs) {
      stopping ??= stop(graceMs);
      return stopping;
    },
  };
}

/** The services by which gRPC's own tools find out what is here. */
function protocolServices(
  platform: Platform,
  services: readonly DescService[],
  health: Implementation,
): readonly Implementation[] {
  if (!platform.reflection) return [health];
  const described = [...services.map((service): Implementation => ({ service, handlers: {} })), health];
  return [health, ...reflectionServices(described)];
}

async function readTls(config: GatewayConfig): Promise<EdgeTls | undefined> {
  const { CADRE_TLS_CERT_FILE: certFile, CADRE_TLS_KEY_FILE: keyFile } = config;
  if (certFile === undefined && keyFile === undefined) return undefined;
  if (certFile === undefined || keyFile === undefined) {
    throw new ConfigurationError(["CADRE_TLS_CERT_FILE and CADRE_TLS_KEY_FILE are set together, or neither is"]);
  }
  const [cert, key] = await Promise.all([readFile(certFile), readFile(keyFile)]);
  return { cert, key };
}
