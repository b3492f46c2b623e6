import { execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chown, mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { basename, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import type { Logger } from "../log/log.ts";
import { launchAs, type OperatingSystemUser, postgresUser } from "./operating-system-user.ts";
import { findPostgresBinaries, postgresMajorVersion } from "./postgres-binary.ts";
import { inspectServer, isProcessAlive, readServerProcess, type ServerProcess } from "./server-process.ts";

/** What Cadre keeps in a cluster's directory, readable by its owner only. */
export interface ClusterSecrets {
  /** Password of the superuser `postgres`, which only looks after the server. */
  readonly superuserPassword: string;
  /** Password of the role `cadre`, which owns the database `cadre`. */
  readonly password: string;
  /** The port of the last start, tried first at the next. */
  readonly port: number;
}

const secretsFile = "cadre.json";

/**
 * Server settings. What is not here is PostgreSQL's default, so `fsync`,
 * `synchronous_commit` and `full_page_writes` are on; they are named to say so.
 */
const settings: Readonly<Record<string, string>> = {
  listen_addresses: "127.0.0.1",
  unix_socket_directories: "",
  // The pools of a mesh on one machine, all of them full, are a few more than 100.
  max_connections: "200",
  shared_buffers: "128MB",
  work_mem: "8MB",
  maintenance_work_mem: "64MB",
  fsync: "on",
  synchronous_commit: "on",
  full_page_writes: "on",
  // On macOS the default does not get past the disk's own cache.
  ...(process.platform === "darwin" ? { wal_sync_method: "fsync_writethrough" } : {}),
  password_encryption: "scram-sha-256",
  timezone: "UTC",
  log_timezone: "UTC",
  // Short statements of one application: compiling and parallel plans cost more than they give.
  jit: "off",
  max_parallel_workers_per_gather: "0",
  // Plans are made by what a table had when it was looked at last, and tables grow from nothing within a minute.
  autovacuum_naptime: "5s",
  // Reads come from memory; spares the three I/O worker processes.
  io_method: "sync",
  // A statement's values may be secrets: neither statements nor details are logged.
  log_min_messages: "warning",
  log_min_error_statement: "panic",
  log_error_verbosity: "terse",
  log_line_prefix: "%m [%p] ",
};

/** A PostgreSQL cluster: one data directory, and the server on it. */
export interface PostgresCluster {
  readonly directory: string;
  readonly secrets: ClusterSecrets;
}

/**
 * Makes the cluster if there is none. It is made beside its place and renamed,
 * so that neither a crash nor two processes at once leave half of one.
 *
 * @param directory absolute; its parent exists
 * @param onWait called when a cluster is being made, by other processes
 * @throws Error if the directory holds another major version of PostgreSQL
 */
export async function ensureCluster(directory: string, log: Logger, onWait?: () => void): Promise<PostgresCluster> {
  const existing = await readCluster(directory);
  if (existing !== undefined) return existing;
  await removeAbandoned(directory);
  const user = await postgresUser();
  const { initdb } = await findPostgresBinaries();
  const temporary = `${directory}.new-${process.pid}-${randomBytes(4).toString("hex")}`;
  await mkdir(temporary, { mode: 0o700 });
  try {
    const secrets: ClusterSecrets = {
      superuserPassword: randomBytes(24).toString("base64url"),
      password: randomBytes(24).toString("base64url"),
      port: 0,
    };
    const passwordFile = `${temporary}.password`;
    await writeOwned(passwordFile, secrets.superuserPassword, user);
    if (user !== undefined) await chown(temporary, user.uid, user.gid);
    const args = [
      `--pgdata=${temporary}`,
      "--username=postgres",
      `--pwfile=${passwordFile}`,
      "--auth=scram-sha-256",
      "--encoding=UTF8",
      // The same order on every machine, whatever locales it has.
      "--locale-provider=builtin",
      "--builtin-locale=C.UTF-8",
      "--locale=C",
      "--data-checksums",
      "--no-instructions",
    ];
    const launch = await launchAs(user, initdb, args, [initdb, dirname(temporary)]);
    try {
      const making = promisify(execFile)(launch.command, launch.args, {
        cwd: "/",
        env: serverEnvironment(),
        ...launch.user,
        timeout: 120_000,
      });
      onWait?.();
      await making;
    } finally {
      await rm(passwordFile, { force: true });
    }
    await writeOwned(join(temporary, secretsFile), JSON.stringify(secrets), user);
    try {
      await rename(temporary, directory);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOTEMPTY" && code !== "EEXIST") throw error;
      log.info("another process made the database at the same moment");
    }
    await syncDirectory(dirname(directory));
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  const made = await readCluster(directory);
  if (made === undefined) throw new Error(`${directory} was made, but is not there`);
  return made;
}

/** Reads an existing cluster; `undefined` if the directory is missing or empty. Throws as `ensureCluster`. */
export async function readCluster(directory: string): Promise<PostgresCluster | undefined> {
  let version: string;
  try {
    version = (await readFile(join(directory, "PG_VERSION"), "utf8")).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    const entries = await readdir(directory).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === "ENOENT") return [];
      throw cause;
    });
    if (entries.length === 0) return undefined;
    throw new Error(`${directory} is not a PostgreSQL data directory, and not empty`);
  }
  if (version !== String(postgresMajorVersion)) {
    throw new Error(`${directory} belongs to PostgreSQL ${version}; this build brings ${postgresMajorVersion}`);
  }
  const secrets = JSON.parse(await readFile(join(directory, secretsFile), "utf8")) as ClusterSecrets;
  return { directory, secrets };
}

/** A server that runs. */
export interface RunningServer {
  readonly pid: number;
  readonly port: number;
  /** Whether it ran already. */
  readonly adopted: boolean;
}

export interface StartServerOptions {
  readonly log: Logger;
  /** The file that the server's output is added to. */
  readonly logFile: string;
  /** Only this port will do; without it another is chosen if the last one is taken. */
  readonly port?: number;
  /** Replaces server settings; the tests give up durability for speed with it. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Called when the server has been launched, and is waited for. */
  readonly onWait?: () => void;
}

/**
 * Makes sure that a server runs on the cluster: takes the one that runs, or
 * starts one. Several processes may do so at once; one server comes of it.
 *
 * The server is no child in the sense of dying with this process: it has a
 * session of its own and writes to a file.
 *
 * @throws Error if the server does not come up; the message ends with its last words
 */
export async function ensureServer(cluster: PostgresCluster, options: StartServerOptions): Promise<RunningServer> {
  const attempts = 8;
  let lastWords = "";
  for (let attempt = 1; attempt <= attempts; attempt++) {
    const running = await waitUntilSettled(cluster.directory, options.log);
    if (running !== undefined) return { pid: running.pid, port: running.port, adopted: true };
    const port = options.port ?? (await choosePort(attempt === 1 ? cluster.secrets.port : 0));
    const outcome = await launchServer(cluster, port, options);
    if (outcome.state === "ready") {
      if (cluster.secrets.port !== port) await rememberPort(cluster, port);
      return { pid: outcome.pid, port, adopted: false };
    }
    // Lost a race for the directory or the port, or an earlier server's processes are still ending.
    lastWords = outcome.lastWords;
    options.log.warn({ attempt, lastWords }, "postgres did not start");
    await delay(100 * attempt);
  }
  throw new Error(`PostgreSQL does not start on ${cluster.directory} (log: ${options.logFile}): ${lastWords}`);
}

/**
 * Stops the server of a directory: open transactions are rolled back, what was
 * committed is on disk anyway. Resolves when it has ended; at once if none runs.
 *
 * @throws Error if it still runs after `timeoutMs`
 */
export async function stopServer(directory: string, log: Logger, timeoutMs = 30_000): Promise<void> {
  const server = await readServerProcess(directory);
  if (server === undefined) return;
  const state = await inspectServer(server, directory);
  if (state === "gone") return;
  if (state === "unknown") throw new Error(`cannot tell whether process ${server.pid} is the server of ${directory}`);
  // SIGINT is PostgreSQL's "fast" shutdown, SIGQUIT its "immediate" one, after which it recovers at the next start.
  for (const [signal, waitMs] of [
    ["SIGINT", timeoutMs],
    ["SIGQUIT", 5_000],
  ] as const) {
    try {
      process.kill(server.pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ESRCH") return;
      throw error;
    }
    const deadline = performance.now() + waitMs;
    while (performance.now() < deadline) {
      const now = await readServerProcess(directory);
      if (now?.pid !== server.pid || (await inspectServer(now, directory)) === "gone") return;
      await delay(20);
    }
    log.warn({ pid: server.pid, signal, waitMs }, "postgres did not stop in time");
  }
  throw new Error(`PostgreSQL (process ${server.pid}) does not stop`);
}

/** The server of the directory once it is ready, or `undefined` once it is clear that none runs. */
async function waitUntilSettled(directory: string, log: Logger): Promise<ServerProcess | undefined> {
  // Recovery after a crash reads the log written since the last checkpoint: seconds, at worst minutes.
  const deadline = performance.now() + 300_000;
  let told = false;
  while (performance.now() < deadline) {
    const server = await readServerProcess(directory);
    if (server === undefined) return undefined;
    if ((await inspectServer(server, directory)) === "gone") {
      // PostgreSQL removes a stale file by itself, unless the pid is some other program's by now.
      if (await isProcessAlive(server.pid)) await removeStale(directory, server);
      return undefined;
    }
    if (server.status === "ready") return server;
    if (!told) log.info({ pid: server.pid, status: server.status }, "waiting for postgres");
    told = true;
    await delay(20);
  }
  throw new Error(`the PostgreSQL on ${directory} is neither ready nor gone after 5 minutes`);
}

/** Removes `postmaster.pid` if it is still the one that was found stale. */
async function removeStale(directory: string, stale: ServerProcess): Promise<void> {
  const now = await readServerProcess(directory);
  if (now?.pid === stale.pid && now.startedAtSeconds === stale.startedAtSeconds) {
    await rm(join(directory, "postmaster.pid"), { force: true });
  }
}

type Outcome =
  | { readonly state: "ready"; readonly pid: number }
  | { readonly state: "ended"; readonly lastWords: string };

async function launchServer(cluster: PostgresCluster, port: number, options: StartServerOptions): Promise<Outcome> {
  const { postgres } = await findPostgresBinaries();
  const args = ["-D", cluster.directory];
  for (const [name, value] of Object.entries({ ...settings, ...options.settings, port: String(port) })) {
    args.push("-c", `${name}=${value}`);
  }
  const launch = await launchAs(await postgresUser(), postgres, args, [postgres, cluster.directory]);
  const output = await open(options.logFile, "a", 0o600);
  const { size: logStart } = await output.stat();
  let exited: string | undefined;
  let pid: number | undefined;
  try {
    const child = spawn(launch.command, launch.args, {
      cwd: "/",
      env: serverEnvironment(),
      detached: true,
      stdio: ["ignore", output.fd, output.fd],
      ...launch.user,
    });
    child.once("error", (error) => {
      exited = error.message;
    });
    child.once("exit", (code, signal) => {
      exited = `exit ${signal ?? code}`;
    });
    child.unref();
    pid = child.pid;
    options.onWait?.();
    const deadline = performance.now() + 300_000;
    while (exited === undefined && performance.now() < deadline) {
      const server = await readServerProcess(cluster.directory);
      if (server?.pid === pid && server?.status === "ready") return { state: "ready", pid: server.pid };
      await delay(10);
    }
    if (exited === undefined && pid !== undefined) process.kill(pid, "SIGQUIT");
    const lastWords = (await tail(options.logFile, logStart)) || exited || "no answer in 5 minutes";
    return { state: "ended", lastWords };
  } finally {
    await output.close();
  }
}

/** The end of a log file, at most 1 KiB, from `start` on. */
async function tail(path: string, start: number): Promise<string> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const from = Math.max(Math.min(start, size), size - 1024);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(size - from), 0, size - from, from);
    return buffer.toString("utf8", 0, bytesRead).trim();
  } finally {
    await file.close();
  }
}

async function rememberPort(cluster: PostgresCluster, port: number): Promise<void> {
  const path = join(cluster.directory, secretsFile);
  const temporary = `${path}.${randomBytes(4).toString("hex")}`;
  await writeOwned(temporary, JSON.stringify({ ...cluster.secrets, port }), await postgresUser());
  await rename(temporary, path);
}

/** The wished port if it is free, else any free one. Whoever is faster may still take it. */
async function choosePort(wished: number): Promise<number> {
  for (const port of [wished, 0]) {
    const chosen = await new Promise<number | undefined>((resolve) => {
      const probe = createServer();
      probe.once("error", () => resolve(undefined));
      probe.listen(port, "127.0.0.1", () => {
        const address = probe.address();
        probe.close(() => resolve(typeof address === "object" && address !== null ? address.port : undefined));
      });
    });
    if (chosen !== undefined) return chosen;
  }
  throw new Error("no free port on 127.0.0.1");
}

async function writeOwned(path: string, text: string, user: OperatingSystemUser | undefined): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  if (user !== undefined) await chown(path, user.uid, user.gid);
}

/** Removes what an `ensureCluster` left that was killed: directories named by a process that is gone. */
async function removeAbandoned(directory: string): Promise<void> {
  const prefix = `${basename(directory)}.new-`;
  for (const entry of await readdir(dirname(directory))) {
    if (!entry.startsWith(prefix)) continue;
    const pid = Number.parseInt(entry.slice(prefix.length), 10);
    if (pid !== process.pid && !(await isProcessAlive(pid))) {
      await rm(join(dirname(directory), entry), { recursive: true, force: true });
    }
  }
}

/** Makes a rename in the directory durable. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** The server inherits nothing but a search path: no secrets, and none of the `PG*` variables. */
function serverEnvironment(): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH ?? "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" };
}
