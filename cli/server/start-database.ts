import { startEmbeddedPostgres } from "../../services/runtime/postgres/embedded-server.ts";
import type { ProcessScope } from "./process-scope.ts";

/**
 * Starts the PostgreSQL in the data directory, for as long as the process
 * lives, and returns its URL. The process ends when the directory is lost.
 *
 * @param onWait called at each moment when other processes work on it and this one would wait
 */
export async function startDatabase(scope: ProcessScope, onWait?: () => void): Promise<string> {
  const { log, dataDirectory } = scope;
  const postgres = await startEmbeddedPostgres({
    dataDirectory,
    log: log.child({ component: "postgres" }),
    onWait,
    onLost: (error) => {
      log.error({ err: error }, "the data directory was lost; ending");
      process.kill(process.pid, "SIGTERM");
    },
  });
  scope.onStop("postgres", () => postgres.stop());
  return postgres.url;
}
