import { startCredentials } from "../../services/credentials/main.ts";
import { startEvents } from "../../services/events/main.ts";
import { startGateway } from "../../services/gateway/main.ts";
import { startOrchestrator } from "../../services/orchestrator/main.ts";
import { startRegistry } from "../../services/registry/main.ts";
import { createLocalAuthority } from "../../services/runtime/identity/service-identity.ts";
import { createMemoryMesh } from "../../services/runtime/memory/memory-mesh.ts";
import { createPlatform } from "../../services/runtime/platform/create-platform.ts";
import { startTools } from "../../services/tools/main.ts";
import { kafkaOf, registryOf, type ServerConfiguration } from "./configuration.ts";
import type { ProcessScope } from "./process-scope.ts";
import { version } from "./version.ts";

/** What a started `cadre dev` is reached by. */
export interface RunningDev {
  readonly url: string;
  readonly adminUrl: string;
  /** The secret of the first org's key, if this start made it. */
  readonly firstKey: string | undefined;
}

/** How long calls that run may go on when the process is told to end. */
const graceMs = 30_000;

/** Starts all services in this process, over a mesh in memory. */
export async function startDev(
  configuration: ServerConfiguration,
  scope: ProcessScope,
  databaseUrl: string,
): Promise<RunningDev> {
  const { log, dataDirectory, telemetry, processId } = scope;
  // The embedded server is held by this process alone, so no other orchestrator lives.
  const isOwnDatabase = configuration.platform.CADRE_DATABASE_URL === undefined;
  const mode = configuration.platform.CADRE_MODE;
  const authority = createLocalAuthority();
  const mesh = createMemoryMesh();
  const platform = createPlatform({
    mode,
    dataDirectory,
    pageTokenKeyFile: configuration.platform.CADRE_PAGE_TOKEN_KEY_FILE,
    version,
    databaseUrl,
    kafka: kafkaOf(configuration),
    registry: registryOf(configuration),
    processId,
    reflection: (configuration.platform.CADRE_REFLECTION ?? `${mode === "embedded"}`) === "true",
    log,
    telemetry,
    mesh,
    identityOf: (name) => authority.identity(name),
    trust: authority,
  });
  scope.onStop("mesh", () => mesh.close());
  // They tolerate any order, so they start at once; they stop one after the
  // other, the outermost first.
  const [credentials, tools, registry, orchestrator, events, gateway] = await Promise.all([
    startCredentials(platform, configuration.credentials),
    startTools(platform, configuration.tools),
    startRegistry(platform),
    startOrchestrator(platform, {
      ...configuration.orchestrator,
      CADRE_ORCHESTRATOR_PREVIOUS_WRITERS_ARE_DEAD: isOwnDatabase,
    }),
    startEvents(platform, configuration.events),
    startGateway(platform, configuration.gateway),
  ]);
  scope.onStop(credentials.name, () => credentials.stop(graceMs));
  // What was denied is written after those who deny have stopped, and before
  // credentials, which keeps the audit log.
  scope.onStop("audit", () => platform.stop());
  for (const service of [tools, registry, events, orchestrator, gateway])
    scope.onStop(service.name, () => service.stop(graceMs));
  return { url: gateway.url, adminUrl: gateway.adminUrl, firstKey: credentials.firstKey?.secret };
}
