import { AuthenticationService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { createChangeFeed } from "../runtime/identity/change-feed.ts";
import { clockDependency } from "../runtime/identity/clock-dependency.ts";
import { createLimits } from "../runtime/identity/limits.ts";
import { createPrincipalCheck } from "../runtime/identity/principal-check.ts";
import { loadPageTokens } from "../runtime/page/load-page-tokens.ts";
import type { StartService } from "../runtime/platform/platform.ts";
import { migrate } from "../runtime/postgres/migrator.ts";
import { openDatabase } from "../runtime/postgres/open-database.ts";
import type { ToolsConfig } from "./config.ts";
import { createTools } from "./create-tools.ts";
import { migrations } from "./store/migrations/index.ts";
import type { ToolsSchema } from "./store/schema.ts";

/** Starts tools. */
export const startTools: StartService<ToolsConfig> = async (platform, config) => {
  const log = platform.log.child({ component: "tools" });
  const { databaseUrl: url, processId } = platform;
  const pages = loadPageTokens(platform);

  await migrate({ url, service: "tools", migrations, log });
  const database = openDatabase<ToolsSchema>({
    url,
    service: "tools",
    log,
    tracer: platform.tracer,
    meter: platform.meter,
  });
  const authentication = platform.client("tools", "credentials", AuthenticationService);
  const changes = createChangeFeed({ client: authentication, processId, log });
  const principals = createPrincipalCheck({ authentication, changes });

  const tools = await createTools({
    config,
    database,
    principals: {
      assertMayAct: (principal) => principals.assertMayAct(principal),
      onChange: (wake) => changes.listen({ onRevoked: wake, onReset: wake }),
    },
    limits: createLimits({ authentication, changes, log }),
    denials: platform.audit("tools").denials,
    pages,
    log,
    replicaId: processId,
  });
  const server = await platform.serve("tools", {
    implementations: tools.implementations,
    dependencies: [database.dependency, clockDependency(changes)],
  });

  let stopped: Promise<void> | undefined;
  return {
    name: "tools",
    stop(graceMs) {
      stopped ??= (async () => {
        // Workers hold their streams open; they connect again, to another replica.
        tools.drain();
        await server.close(graceMs);
        await Promise.all([tools.stop(), changes.stop()]);
        await database.close();
      })();
      return stopped;
    },
  };
};
