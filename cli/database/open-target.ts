import { join, resolve } from "node:path";
import type { Logger } from "../../services/runtime/log/log.ts";
import { DataDirectoryInUseError, startEmbeddedPostgres } from "../../services/runtime/postgres/embedded-server.ts";
import { readCluster } from "../../services/runtime/postgres/postgres-cluster.ts";
import { isServerAlive, readServerProcess } from "../../services/runtime/postgres/server-process.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";

/** Where a command's database is said to be. */
export interface TargetFlags {
  readonly databaseUrl?: string;
  readonly data?: string;
}

/** A database that a command works on. */
export interface Target {
  readonly url: string;
  /** For people: where it is, without a password. */
  readonly place: string;
  close(): Promise<void>;
}

/**
 * Opens the database that flags and environment name: an own PostgreSQL, or the
 * embedded one, which is started for the time being.
 *
 * @param readOnly whether an embedded one that a running Cadre uses will do
 * @throws CliError 78 if there is none, or a running Cadre uses it
 */
export async function openTarget(flags: TargetFlags, readOnly: boolean, log: Logger): Promise<Target> {
  const named = flags.databaseUrl ?? process.env.CADRE_DATABASE_URL;
  if (named !== undefined && named !== "") {
    if (!URL.canParse(named)) throw new CliError(exitCode.configuration, "the database's URL is none");
    const { host, pathname } = new URL(named);
    return { url: named, place: `${host}${pathname}`, close: async () => undefined };
  }
  const dataDirectory = resolve(flags.data ?? process.env.CADRE_DATA ?? ".cadre");
  const directory = join(dataDirectory, "postgres");
  const cluster = await readCluster(directory);
  if (cluster === undefined) {
    throw new CliError(
      exitCode.configuration,
      `there is no database in ${dataDirectory}`,
      "Start a server there once, or name a PostgreSQL with CADRE_DATABASE_URL.",
    );
  }
  try {
    const server = await startEmbeddedPostgres({ dataDirectory, log });
    return { url: server.url, place: dataDirectory, close: () => server.stop() };
  } catch (thrown) {
    if (!(thrown instanceof DataDirectoryInUseError)) throw thrown;
    const running = await readServerProcess(directory);
    if (!readOnly || running === undefined || !(await isServerAlive(running, directory))) {
      throw new CliError(exitCode.configuration, thrown.message, "Stop the server first.");
    }
    const password = encodeURIComponent(cluster.secrets.password);
    const url = `postgres://cadre:${password}@127.0.0.1:${running.port}/cadre`;
    return { url, place: `${dataDirectory}, in use`, close: async () => undefined };
  }
}
