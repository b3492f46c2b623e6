import { ConfigurationError } from "../../services/runtime/config/settings.ts";
import {
  type CertificateFiles,
  createCertificateTrust,
  loadCertificateIdentity,
} from "../../services/runtime/identity/certificate-identity.ts";
import { watchCertificateTls } from "../../services/runtime/identity/certificate-tls.ts";
import { createGrpcMesh } from "../../services/runtime/mesh/grpc-mesh.ts";
import { createPlatform } from "../../services/runtime/platform/create-platform.ts";
import type { RunningService } from "../../services/runtime/platform/platform.ts";
import { kafkaOf, loadConfiguration, registryOf, type ServerConfiguration } from "./configuration.ts";
import { explainFailedStart } from "./exit.ts";
import { settingsOf } from "./flags.ts";
import type { ProcessScope } from "./process-scope.ts";
import { runServer } from "./run-server.ts";
import { isStartable, type StartableService, serviceStarters } from "./start-service.ts";
import { version } from "./version.ts";

const graceMs = 30_000;

/** `cadre serve <services…>`. Resolves with the exit code when the process was told to end. */
export async function runServe(names: readonly string[], options: Readonly<Record<string, unknown>>): Promise<number> {
  let configuration: ServerConfiguration;
  let services: readonly StartableService[];
  try {
    configuration = loadConfiguration(settingsOf(options));
    services = toServices(names, configuration);
  } catch (thrown) {
    return explainFailedStart(thrown);
  }
  return runServer(configuration, services.join("-"), async (scope) => {
    for (const service of services) await startOne(service, configuration, scope, services.length > 1);
    return options.json === true
      ? `${JSON.stringify({ services, pid: process.pid })}\n`
      : `${services.join(", ")} ready\n`;
  });
}

function toServices(names: readonly string[], { platform }: ServerConfiguration): StartableService[] {
  const problems = names
    .filter((name) => !isStartable(name))
    .map((name) => `${name} is no service; there are ${Object.keys(serviceStarters).join(", ")}`);
  if (platform.CADRE_DATABASE_URL === undefined) {
    problems.push("CADRE_DATABASE_URL is not set: services of their own processes share a PostgreSQL; name it");
  }
  for (const name of ["CADRE_MESH_CA_FILE", "CADRE_MESH_CERT_FILE", "CADRE_MESH_KEY_FILE"] as const) {
    if (platform[name] === undefined) problems.push(`${name} is not set: services call each other by mutual TLS only`);
  }
  if (problems.length > 0) throw new ConfigurationError(problems);
  return names.filter(isStartable);
}

async function startOne(
  service: StartableService,
  configuration: ServerConfiguration,
  scope: ProcessScope,
  isOneOfSeveral: boolean,
): Promise<RunningService> {
  const { platform: settings } = configuration;
  const addresses = {
    credentials: settings.CADRE_MESH_CREDENTIALS,
    tools: settings.CADRE_MESH_TOOLS,
    registry: settings.CADRE_MESH_REGISTRY,
    orchestrator: settings.CADRE_MESH_ORCHESTRATOR,
    events: settings.CADRE_MESH_EVENTS,
    gateway: settings.CADRE_MESH_GATEWAY,
  };
  const files = filesOf(service, configuration);
  const log = scope.log.child({ component: "mesh" });
  const tls = watchCertificateTls(files, (thrown) => log.error({ err: thrown }, "the certificate could not be read"));
  scope.onStop("certificates", async () => tls.stop());
  // Several in one process each listen where their peers look for them.
  const listen = (isOneOfSeveral ? addresses[service][0] : undefined) ?? settings.CADRE_MESH_LISTEN;
  const mesh = createGrpcMesh({ name: service, listen, addresses, tls, log });
  scope.onStop("mesh", () => mesh.close());
  const identity = loadCertificateIdentity(service, files);
  const platform = createPlatform({
    mode: settings.CADRE_MODE,
    dataDirectory: scope.dataDirectory,
    pageTokenKeyFile: settings.CADRE_PAGE_TOKEN_KEY_FILE,
    version,
    databaseUrl: settings.CADRE_DATABASE_URL ?? "",
    kafka: kafkaOf(configuration),
    registry: registryOf(configuration),
    processId: scope.processId,
    reflection: (settings.CADRE_REFLECTION ?? `${settings.CADRE_MODE === "embedded"}`) === "true",
    log: scope.log,
    telemetry: scope.telemetry,
    mesh,
    identityOf: () => identity,
    trust: createCertificateTrust(tls.current().authority),
  });
  scope.onStop("audit", () => platform.stop());
  const running = await serviceStarters[service](platform, configuration);
  scope.onStop(service, () => running.stop(graceMs));
  return running;
}

/** `{service}` in a file's name stands for the service's name. */
function filesOf(service: StartableService, { platform }: ServerConfiguration): CertificateFiles {
  const file = (name: string | undefined): string => (name ?? "").replaceAll("{service}", service);
  return {
    authority: file(platform.CADRE_MESH_CA_FILE),
    certificate: file(platform.CADRE_MESH_CERT_FILE),
    key: file(platform.CADRE_MESH_KEY_FILE),
  };
}
