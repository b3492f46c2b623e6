import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { readTroubles } from "../../cli/server/mesh-health.ts";
import { planMembers, renewCertificates } from "../../cli/server/mesh-members.ts";
import type { StartableService } from "../../cli/server/start-service.ts";
import type { RunningCadre } from "./cadre.ts";
import { reach } from "./fault-driver.ts";

/** A service in a process of its own that nobody starts again when it ends. */
export interface ServiceProcess {
  readonly service: StartableService;
  /** Of the process that runs, or ran last. */
  readonly pid: number;
  readonly isRunning: boolean;
  /** Starts it. It waits itself for what it needs. */
  start(): void;
  /** Ends it and waits for that. */
  end(signal: NodeJS.Signals): Promise<void>;
}

/** All services, each in a process of its own, on a PostgreSQL that is somebody else's. */
export interface ServiceMesh extends RunningCadre {
  readonly services: readonly ServiceProcess[];
  /** Whether both gateways say that everything serves. */
  isReady(): Promise<boolean>;
}

export interface ServiceMeshOptions {
  readonly databaseUrl: string;
  /** Settings, `CADRE_…`. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Kept after `dispose` if given. */
  readonly dataDirectory?: string;
  /** What the environment of one of several of a service, counted from 0, is besides. */
  readonly environmentOf?: (service: StartableService, nth: number) => Readonly<Record<string, string>>;
}

/** Starts all of it, as `cadre mesh` would, and waits until it serves. */
export async function startServiceMesh(options: ServiceMeshOptions): Promise<ServiceMesh> {
  const dataDirectory = options.dataDirectory ?? mkdtempSync(join(tmpdir(), "cadre test "));
  await renewCertificates(dataDirectory);
  const members = await planMembers({
    dataDirectory,
    databaseUrl: options.databaseUrl,
    settings: { CADRE_MAX_CONNECTIONS_PER_SOURCE: "5000", ...options.settings },
    ports: { public: 0, admin: 0 },
  });
  let errors = "";
  const onError = (text: string): void => void (errors = `${errors}${text}`.slice(-100_000));
  const counts = new Map<StartableService, number>();
  const services = members.map(({ service, settings }) => {
    const nth = counts.get(service) ?? 0;
    counts.set(service, nth + 1);
    return serviceProcess(service, { ...settings, ...options.environmentOf?.(service, nth) }, onError);
  });
  const gateways = members.filter(({ service }) => service === "gateway").map(({ settings }) => settings);
  const adminUrls = gateways.map(({ CADRE_ADMIN_PORT }) => `http://127.0.0.1:${CADRE_ADMIN_PORT}`);
  const isReady = async (): Promise<boolean> => (await Promise.all(adminUrls.map(serves))).every(Boolean);
  const endAll = async (signal: NodeJS.Signals): Promise<void> => {
    await Promise.all(services.map((service) => service.end(signal)));
  };
  const startAll = async (): Promise<void> => {
    for (const service of services) service.start();
    await reach("a mesh that serves", isReady, { everyMs: 200, timeoutMs: 240_000 });
  };
  try {
    await startAll();
  } catch (error) {
    await endAll("SIGKILL");
    throw error;
  }
  const mesh: ServiceMesh = {
    services,
    isReady,
    url: `http://127.0.0.1:${gateways[0]?.CADRE_PORT}`,
    adminUrl: adminUrls[0] ?? "",
    adminKey: readFileSync(join(dataDirectory, "admin.key"), "utf8").trim(),
    dataDirectory,
    pid: process.pid,
    stderr: () => errors,
    async stop() {
      await endAll("SIGTERM");
      return 0;
    },
    kill: () => endAll("SIGKILL"),
    async restart() {
      await startAll();
      return mesh;
    },
    async dispose() {
      await endAll("SIGTERM");
      if (options.dataDirectory === undefined) rmSync(dataDirectory, { recursive: true, force: true });
    },
  };
  return mesh;
}

/** Whether the gateway behind an admin port says that everything serves. */
export async function serves(adminUrl: string): Promise<boolean> {
  try {
    return (await readTroubles(adminUrl)).length === 0;
  } catch {
    return false; // it is not there yet
  }
}

function serviceProcess(
  service: StartableService,
  settings: Readonly<Record<string, string>>,
  onError: (text: string) => void,
): ServiceProcess {
  let child: ChildProcess | undefined;
  let ended: Promise<void> = Promise.resolve();
  const isRunning = (): boolean => child !== undefined && child.exitCode === null && child.signalCode === null;
  return {
    service,
    get pid() {
      return child?.pid ?? 0;
    },
    get isRunning() {
      return isRunning();
    },
    start() {
      const started = spawn(process.execPath, ["cli/bin/cadre.js", "serve", service, "--json"], {
        stdio: ["ignore", "pipe", "pipe"],
        env: { ...process.env, ...settings },
      });
      createInterface({ input: started.stdout }).resume();
      started.stderr.setEncoding("utf8").on("data", (text: string) => onError(`${service}: ${text}`));
      ended = new Promise((resolve) => started.once("exit", () => resolve()));
      child = started;
    },
    async end(signal) {
      if (isRunning()) child?.kill(signal);
      await ended;
    },
  };
}
