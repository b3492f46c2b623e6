import { startEmbeddedPostgres } from "../../services/runtime/postgres/embedded-server.ts";
import type { ProcessScope } from "./process-scope.ts";

/**
 * Starts the PostgreSQL in the data directory, for as long as the process
 * lives, and returns its URL. The process ends when the directory is lost.
 */
export async function startDatabase(scope: ProcessScope): Promise<string> {
  const { log, dataDirectory } = scope;
  const postgres = await startEmbeddedPostgres({
    dataDirectory,
    log: log.child({ component: "postgres" }),
    onLost: (error) => {
      log.error({ err: error }, "the data directory was lost; ending");
      process.kill(process.pid, "SIGTERM");
    },
  });
  scope.onStop("postgres", () => postgres.stop());
  return postgres.url;
}
