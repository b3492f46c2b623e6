import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import { startEmbeddedPostgres } from "../../services/runtime/postgres/embedded-server.ts";
import { ensureServer, readCluster, stopServer } from "../../services/runtime/postgres/postgres-cluster.ts";
import { isProcessAlive, readServerProcess } from "../../services/runtime/postgres/server-process.ts";
import { InfrastructureError, reach } from "./fault-driver.ts";
import { childrenOf } from "./process-tree.ts";

/**
 * How a server is taken down:
 *
 * - `fast`: open transactions are rolled back, and everything is written.
 * - `killed`: all its processes get SIGKILL, as when a machine is lost.
 */
export type PostgresStop = "fast" | "killed";

/** A PostgreSQL of a test's own that stays down until it is told to come back, on the same port. */
export interface OwnPostgres {
  /** For `openDatabase`: the role `cadre`, the owner of the database `cadre`. */
  readonly url: string;
  /** Resolves when it takes connections. */
  start(): Promise<void>;
  /** Resolves when all of its processes have ended. */
  stop(how: PostgresStop): Promise<void>;
  /** Stops it for good. */
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
  const first = await startEmbeddedPostgres({ dataDirectory, log });
  const { url } = first;
  // It would start the server again at once.
  await first.stop();
  const start = async (): Promise<void> => {
    const cluster = await readCluster(directory);
    if (cluster === undefined) throw new InfrastructureError(`no cluster in ${directory}`);
    await ensureServer(cluster, { log, logFile: join(dataDirectory, "postgres.log"), port: Number(new URL(url).port) });
  };
  await start();
  return {
    url,
    start,
    async stop(how) {
      if (how === "fast") return stopServer(directory, log);
      const server = await readServerProcess(directory);
      if (server === undefined) throw new InfrastructureError("no PostgreSQL runs");
      // The postmaster first: it would start again what it loses.
      const pids = [server.pid, ...childrenOf(server.pid).map(({ pid }) => pid)];
      for (const pid of pids) kill(pid);
      await reach("the end of PostgreSQL", async () => !(await Promise.all(pids.map(isProcessAlive))).includes(true));
    },
    async dispose() {
      await stopServer(directory, log);
      if (given === undefined) rmSync(dataDirectory, { recursive: true, force: true });
    },
  };
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    // It ended with the postmaster already.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
