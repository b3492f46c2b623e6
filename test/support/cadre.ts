import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** How the services run: in one process, or each in its own. */
export type Topology = "dev" | "mesh";

/** Both, for tests that must hold in either. */
export const topologies: readonly Topology[] = ["dev", "mesh"];

/** A Cadre that runs as a process of its own, as `npm start` would start it. */
export interface RunningCadre {
  readonly url: string;
  readonly adminUrl: string;
  /** The secret of the first org's owner key. */
  readonly adminKey: string;
  readonly dataDirectory: string;
  readonly pid: number;
  /** What it wrote to standard error so far. */
  stderr(): string;
  /** SIGTERM; resolves with the exit code when the process has ended. */
  stop(): Promise<number | null>;
  /** SIGKILL; resolves when the process is gone. PostgreSQL outlives it. */
  kill(): Promise<void>;
  /** Starts it again on the same data and the same ports, after `stop` or `kill`. */
  restart(): Promise<RunningCadre>;
  /** Stops it, and its PostgreSQL, and removes the data. */
  dispose(): Promise<void>;
}

export interface StartCadreOptions {
  /** `dev`, all in one process, unless said; `mesh`, each service a process of its own. */
  readonly topology?: Topology;
  /** Settings, `CADRE_…`. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Kept after `dispose` if given. */
  readonly dataDirectory?: string;
}

const startTimeoutMs = 180_000;

/** Starts Cadre on free ports and a data directory of its own, and waits until it serves. */
export async function startCadre(options: StartCadreOptions = {}): Promise<RunningCadre> {
  const dataDirectory = options.dataDirectory ?? mkdtempSync(join(tmpdir(), "cadre test "));
  return launch(options, dataDirectory, { port: await freePort(), adminPort: await freePort() });
}

const portRange = { least: 12_000, most: 20_000 } as const;
const given = new Set<number>();

/**
 * A port that nothing has and nobody here was given, below those that the system gives to whoever asks for
 * any: while a server that was killed is not there, nothing else is given its port.
 */
async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(portRange.least, portRange.most);
    if (given.has(port)) continue;
    const probe = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      probe.once("error", () => resolve(false));
      probe.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!isFree) continue;
    await new Promise((resolve) => probe.close(resolve));
    given.add(port);
    return port;
  }
}

async function launch(
  options: StartCadreOptions,
  dataDirectory: string,
  ports: { readonly port: number; readonly adminPort: number },
): Promise<RunningCadre> {
  const flags = [
    options.topology ?? "dev",
    "--json",
    "--data",
    dataDirectory,
    "--port",
    `${ports.port}`,
    "--admin-port",
    `${ports.adminPort}`,
  ];
  const child = spawn(process.execPath, ["cli/bin/cadre.js", ...flags], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...withoutSettings(process.env), CADRE_MAX_CONNECTIONS_PER_SOURCE: "5000", ...options.settings },
  });
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => {
    errors = `${errors}${chunk.toString()}`.slice(-100_000);
  });
  const exited = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
  const ready = await readyLine(child, exited, () => errors);
  const end = async (signal: NodeJS.Signals): Promise<number | null> => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    return exited;
  };
  return {
    url: ready.url,
    adminUrl: ready.admin_url,
    adminKey: readFileSync(join(dataDirectory, "admin.key"), "utf8").trim(),
    dataDirectory,
    pid: child.pid ?? 0,
    stderr: () => errors,
    stop: () => end("SIGTERM"),
    async kill() {
      await end("SIGKILL");
    },
    restart: () => launch(options, dataDirectory, { port: portOf(ready.url), adminPort: portOf(ready.admin_url) }),
    async dispose() {
      const code = await end("SIGTERM");
      if (code !== 0) await stopOrphan(dataDirectory);
      if (options.dataDirectory === undefined) rmSync(dataDirectory, { recursive: true, force: true });
    },
  };
}

/** A Cadre that was killed leaves its PostgreSQL behind: started once more, it adopts and stops it. */
async function stopOrphan(dataDirectory: string): Promise<void> {
  const again = await launch({}, dataDirectory, { port: 0, adminPort: 0 });
  await again.stop();
}

interface ReadyLine {
  readonly url: string;
  readonly admin_url: string;
}

async function readyLine(
  child: ChildProcess,
  exited: Promise<number | null>,
  errors: () => string,
): Promise<ReadyLine> {
  if (child.stdout === null) throw new TypeError("standard output is not piped");
  const lines = createInterface({ input: child.stdout });
  const first = new Promise<string>((resolve) => lines.once("line", resolve));
  const timer = new Promise<undefined>((resolve) => setTimeout(resolve, startTimeoutMs, undefined).unref());
  const line = await Promise.race([first, exited, timer]);
  if (typeof line !== "string") {
    child.kill("SIGKILL");
    throw new Error(`cadre did not start (${line === undefined ? "timed out" : `exit code ${line}`}): ${errors()}`);
  }
  return JSON.parse(line) as ReadyLine;
}

function portOf(url: string): number {
  return Number(new URL(url).port);
}

/** The caller's own settings must not reach a Cadre under test. */
function withoutSettings(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !name.startsWith("CADRE_")));
}
