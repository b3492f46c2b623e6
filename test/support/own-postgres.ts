import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import { startEmbeddedPostgres } from "../../services/runtime/postgres/embedded-server.ts";
import { ensureServer, readCluster, stopServer } from "../../services/runtime/postgres/postgres-cluster.ts";
import { InfrastructureError } from "./fault-driver.ts";

/** A PostgreSQL of a test's own that nobody starts again. */
export interface OwnPostgres {
  /** For `openDatabase`: the role `cadre`, the owner of the database `cadre`. */
  readonly url: string;
  dispose(): Promise<void>;
}

/**
 * Makes a cluster and starts it.
 *
 * @param given where; a temporary directory unless said, which is removed in the end
 */
export async function startOwnPostgres(given?: string): Promise<OwnPostgres> {
  const log = pino({ level: "silent" });
  const dataDirectory = given ?? mkdtempSync(join(tmpdir(), "cadre postgres "));
  const directory = join(dataDirectory, "postgres");
  const { url, stop } = await startEmbeddedPostgres({ dataDirectory, log });
  // Whoever embeds a server starts it again when it ends.
  await stop();
  const cluster = await readCluster(directory);
  if (cluster === undefined) throw new InfrastructureError(`no cluster in ${directory}`);
  await ensureServer(cluster, { log, logFile: join(dataDirectory, "postgres.log"), port: Number(new URL(url).port) });
  return {
    url,
    async dispose() {
      await stopServer(directory, log);
      if (given === undefined) rmSync(dataDirectory, { recursive: true, force: true });
    },
  };
}
