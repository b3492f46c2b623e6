import { copyFile, mkdir, rename, rm, stat, truncate } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import type { Logger } from "../log/log.ts";
import { describeError } from "./database-error.ts";
import { ensureCluster, ensureServer, type PostgresCluster, readCluster, stopServer } from "./postgres-cluster.ts";
import { inspectServer, isProcessAlive, readServerProcess } from "./server-process.ts";

// Invariants:
// E1. Who uses the directory holds the advisory lock `lockKey` on a connection
//     of its own, for as long as it uses it. PostgreSQL drops the lock when that
//     connection ends, so it cannot outlive a crash of its holder.
// E2. Nobody stops a server, or removes its files, without the lock.
// E3. The server outlives a SIGKILL of whoever started it. Lock free: adopt it.
//     Lock held: another Cadre uses it; refuse.

/** Any number will do, if it stays the same for ever; this one spells "cadre". */
const lockKey = "0x6361647265";
const maxLogBytes = 16 * 1024 * 1024;

/** Another Cadre uses the data directory. */
export class DataDirectoryInUseError extends Error {
  override readonly name = "DataDirectoryInUseError";
  readonly dataDirectory: string;
  /** The process that uses it; `undefined` if it could not be found out. */
  readonly processId: number | undefined;

  constructor(dataDirectory: string, processId: number | undefined) {
    const who = processId === undefined ? "another process" : `process ${processId}`;
    super(`the data directory ${dataDirectory} is in use by another Cadre (${who}); stop that one, or give --data`);
    this.dataDirectory = dataDirectory;
    this.processId = processId;
  }
}

export interface EmbeddedPostgresOptions {
  /** The data directory of Cadre; the server's files go to `postgres/` and `postgres.log` in it. Made if missing. */
  readonly dataDirectory: string;
  readonly log: Logger;
  /**
   * Called once if the directory was lost for good: the server cannot be
   * started again, or another Cadre took it over after a crash of the server.
   * The process should end.
   */
  readonly onLost?: (error: Error) => void;
  /**
   * Called while PostgreSQL's processes work and this one would wait, at each
   * such moment: whatever keeps this process busy costs no time then.
   */
  readonly onWait?: () => void;
  /** Replaces server settings. Only for tests: it can give up durability. */
  readonly settings?: Readonly<Record<string, string>>;
}

export interface EmbeddedPostgres {
  /** For `openDatabase`: the role `cadre`, the owner of the database `cadre`. Holds a password. */
  readonly url: string;
  /** The server's process id; another one after a crash that it was restarted from. */
  readonly pid: number;
  /** Whether the server ran already, left over from a Cadre that was killed. */
  readonly adopted: boolean;
  /** Stops the server and gives up the directory. Idempotent. */
  stop(): Promise<void>;
}

/**
 * Starts the PostgreSQL that comes with Cadre, or adopts the one that a killed
 * Cadre left. Listens on 127.0.0.1 only. Restarts it, on the same port, when it
 * ends unexpectedly.
 *
 * @throws DataDirectoryInUseError if a living Cadre uses the directory
 * @throws Error if there is no PostgreSQL for this platform, or it does not start
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { log, onWait } = options;
  const dataDirectory = resolve(options.dataDirectory);
  const directory = join(dataDirectory, "postgres");
  const logFile = join(dataDirectory, "postgres.log");
  await mkdir(dataDirectory, { recursive: true, mode: 0o700 });
  await boundLog(logFile);
  const cluster = await ensureCluster(directory, log, onWait);
  const start = (port?: number) => ensureServer(cluster, { log, logFile, port, settings: options.settings, onWait });

  let server = await start();
  const { adopted, port } = server;
  let lock = await takeLock(cluster, port, dataDirectory);
  log.info({ pid: server.pid, port, adopted }, "postgres is ready");
  try {
    await ensureDatabase(lock, cluster);
  } catch (error) {
    await lock.end();
    throw error;
  }

  const stopping = new AbortController();
  let recovering: Promise<void> | undefined;
  let stopped: Promise<void> | undefined;

  function watch(client: pg.Client): void {
    client.once("end", () => {
      if (stopping.signal.aborted) return;
      log.warn({ pid: server.pid }, "lost the connection that holds the data directory");
      recovering = recover();
    });
  }

  async function recover(): Promise<void> {
    const attempts = 20;
    for (let attempt = 1; ; attempt++) {
      try {
        // The same port: the pools know no other.
        server = await start(port);
        lock = await takeLock(cluster, server.port, dataDirectory);
        watch(lock);
        log.info({ pid: server.pid, adopted: server.adopted }, "postgres is back");
        return;
      } catch (error) {
        if (stopping.signal.aborted) return;
        if (attempt === attempts || error instanceof DataDirectoryInUseError) {
          log.error(describeError(error), "the data directory is lost");
          options.onLost?.(error as Error);
          return;
        }
        log.warn({ ...describeError(error), attempt }, "postgres is not back yet");
        await delay(Math.min(100 * attempt, 1_000));
      }
    }
  }

  async function stop(): Promise<void> {
    stopping.abort();
    clearInterval(logTimer);
    await recovering;
    // E2: the shutdown ends the connection, and so gives up the lock.
    await stopServer(directory, log);
    await lock.end().catch(() => undefined); // already ended by the server
  }

  const logTimer = setInterval(() => {
    boundLog(logFile).catch((error: unknown) => log.warn({ err: error }, "cannot bound postgres.log"));
  }, 60_000).unref();
  watch(lock);
  return {
    url: `postgres://cadre:${encodeURIComponent(cluster.secrets.password)}@127.0.0.1:${port}/cadre`,
    get pid() {
      return server.pid;
    },
    adopted,
    stop: () => (stopped ??= stop()),
  };
}

/**
 * Removes the database of a data directory, with everything in it, also one
 * that does not start any more. Stops an orphaned server first.
 *
 * @throws DataDirectoryInUseError if a living Cadre uses the directory
 */
export async function resetDataDirectory(options: { dataDirectory: string; log: Logger }): Promise<void> {
  const { log } = options;
  const dataDirectory = resolve(options.dataDirectory);
  const directory = join(dataDirectory, "postgres");
  const logFile = join(dataDirectory, "postgres.log");
  let lock: pg.Client | undefined;
  try {
    // E2: only a server can say whether somebody uses the directory, so one is started where none runs.
    const cluster = await readCluster(directory);
    if (cluster !== undefined) {
      const { port } = await ensureServer(cluster, { log, logFile });
      lock = await takeLock(cluster, port, dataDirectory);
    }
  } catch (error) {
    if (error instanceof DataDirectoryInUseError) throw error;
    const server = await readServerProcess(directory);
    if (server !== undefined && (await inspectServer(server, directory)) !== "gone") throw error;
    log.warn(describeError(error), "the database does not start any more; it is removed as it is");
  }
  await stopServer(directory, log);
  await lock?.end().catch(() => undefined); // already ended by the server
  // Under another name nobody takes the half of it that is left for a database.
  const doomed = `${directory}.new-${process.pid}-reset`;
  try {
    await rename(directory, doomed);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  await rm(doomed, { recursive: true, force: true });
  for (const name of [logFile, `${logFile}.1`]) await rm(name, { force: true });
}

/** Takes the lock of E1, on a connection that keeps it. */
async function takeLock(cluster: PostgresCluster, port: number, dataDirectory: string): Promise<pg.Client> {
  // A killed holder's connection ends a moment after the process.
  const deadline = performance.now() + 5_000;
  for (;;) {
    const client = new pg.Client({
      host: "127.0.0.1",
      port,
      user: "postgres",
      password: cluster.secrets.superuserPassword,
      database: "postgres",
      application_name: `cadre ${process.pid}`,
      connectionTimeoutMillis: 10_000,
      keepAlive: true,
    });
    // The 'end' that follows is what counts.
    client.on("error", () => undefined);
    await client.connect();
    const { rows } = await client.query<{ locked: boolean; directory: string }>(
      `select pg_try_advisory_lock(${lockKey}) as locked, current_setting('data_directory') as directory`,
    );
    if (rows[0]?.locked === true) return client;
    const holder = await client.query<{ name: string }>(
      `select a.application_name as name from pg_locks l join pg_stat_activity a using (pid)
        where l.locktype = 'advisory' and l.granted and (l.classid::int8 << 32 | l.objid::int8) = ${lockKey}`,
    );
    await client.end();
    const name = holder.rows[0]?.name;
    const processId = name?.startsWith("cadre ") ? Number(name.slice("cadre ".length)) : undefined;
    if ((processId !== undefined && (await isProcessAlive(processId))) || performance.now() > deadline) {
      throw new DataDirectoryInUseError(dataDirectory, processId);
    }
    await delay(50);
  }
}

/** Makes the role and the database that the services use, at the first start. */
async function ensureDatabase(superuser: pg.Client, cluster: PostgresCluster): Promise<void> {
  const { rows } = await superuser.query<{ role: boolean; database: boolean }>(
    `select exists (select from pg_roles where rolname = 'cadre') as role,
            exists (select from pg_database where datname = 'cadre') as database`,
  );
  if (rows[0]?.role !== true) {
    const password = superuser.escapeLiteral(cluster.secrets.password);
    await superuser.query(`create role cadre login createrole createdb password ${password}`);
  }
  if (rows[0]?.database !== true) await superuser.query("create database cadre owner cadre");
}

/** Keeps the log and one predecessor, 16 MiB each; the server goes on writing at the end of the emptied file. */
async function boundLog(path: string): Promise<void> {
  try {
    if ((await stat(path)).size <= maxLogBytes) return;
    await copyFile(path, `${path}.1`);
    await truncate(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
