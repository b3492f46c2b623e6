import { AuthenticationService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { InstallationService } from "@cadre/gen/cadre/credentials/v1/installation_pb";
import { createChangeFeed } from "../runtime/identity/change-feed.ts";
import { createLimits } from "../runtime/identity/limits.ts";
import { toUuid } from "../runtime/ids/id.ts";
import type { Platform, RunningService } from "../runtime/platform/platform.ts";
import { migrate } from "../runtime/postgres/migrator.ts";
import { openDatabase } from "../runtime/postgres/open-database.ts";
import type { Implementation } from "../runtime/rpc/implementation.ts";
import { contractCheckHandlers, contractHandlers } from "./rpc/contract-handlers.ts";
import { fieldUseHandlers } from "./rpc/field-use-handlers.ts";
import { registryHandlers } from "./rpc/handlers.ts";
import { migrations } from "./store/migrations/index.ts";
import { PostgresRegistryStore } from "./store/postgres-registry-store.ts";
import type { RegistrySchema } from "./store/schema.ts";

/** Starts the registry, which has no settings of its own. */
export async function startRegistry(platform: Platform): Promise<RunningService> {
  const log = platform.log.child({ component: "registry" });
  const { databaseUrl: url, processId } = platform;

  await migrate({ url, service: "registry", migrations, log });
  const database = openDatabase<RegistrySchema>({
    url,
    service: "registry",
    log,
    tracer: platform.tracer,
    meter: platform.meter,
  });
  const authentication = platform.client("registry", "credentials", AuthenticationService);
  const changes = createChangeFeed({ client: authentication, processId, log });
  const store = new PostgresRegistryStore(database);
  const limits = createLimits({ authentication, changes, log });

  const installation = platform.client("registry", "credentials", InstallationService);
  const operatorOrg = async () => toUuid("org", (await installation.getInstallation({})).operatorOrgId);
  const { sink } = platform.audit("registry");
  const implementations: readonly Implementation[] = [
    registryHandlers({ store, limits }, sink) as Implementation,
    contractHandlers({ store, limits }, sink) as Implementation,
    contractCheckHandlers({ store }, operatorOrg) as Implementation,
    fieldUseHandlers({ store }, operatorOrg) as Implementation,
  ];

  const server = await platform.serve("registry", {
    implementations,
    dependencies: [database.dependency],
  });

  let stopped: Promise<void> | undefined;
  return {
    name: "registry",
    stop(graceMs) {
      stopped ??= (async () => {
        await server.close(graceMs);
        await changes.stop();
        await database.close();
      })();
      return stopped;
    },
  };
}
