import { type ChildProcess, spawn } from "node:child_process";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { ensureDevCertificates } from "../../services/runtime/identity/dev-authority.ts";
import { loadConfiguration, type ServerConfiguration } from "./configuration.ts";
import { explainFailedStart } from "./exit.ts";
import { settingsOf } from "./flags.ts";
import type { ProcessScope } from "./process-scope.ts";
import { runServer } from "./run-server.ts";
import { startDatabase } from "./start-database.ts";
import { type StartableService, serviceStarters } from "./start-service.ts";
import { version } from "./version.ts";

/** One process of the mesh. */
interface Member {
  readonly service: StartableService;
  readonly settings: Readonly<Record<string, string>>;
}

const certificateRenewalMs = 3_600_000;
const firstRestartMs = 200;
const maxRestartMs = 5_000;
const stopMs = 35_000;

/** `cadre mesh`. Resolves with the exit code when the process was told to end. */
export async function runMesh(options: Readonly<Record<string, unknown>>): Promise<number> {
  let configuration: ServerConfiguration;
  try {
    configuration = loadConfiguration(settingsOf(options));
  } catch (thrown) {
    return explainFailedStart(thrown);
  }
  return runServer(configuration, "mesh", async (scope) => {
    const databaseUrl = configuration.platform.CADRE_DATABASE_URL ?? (await startDatabase(scope));
    const members = await planMembers(configuration, scope, databaseUrl);
    await Promise.all(members.map((member) => keepRunning(member, scope)));
    const gateways = members.filter(({ service }) => service === "gateway").map(({ settings }) => settings);
    const urls = gateways.map(({ CADRE_PORT }) => `http://127.0.0.1:${CADRE_PORT}`);
    const adminUrls = gateways.map(({ CADRE_ADMIN_PORT }) => `http://127.0.0.1:${CADRE_ADMIN_PORT}`);
    return options.json === true
      ? `${JSON.stringify({ url: urls[0], urls, admin_url: adminUrls[0], pid: process.pid })}\n`
      : toScreen(members, urls, scope);
  });
}

/** Certificates, ports and settings of every process. */
async function planMembers(
  configuration: ServerConfiguration,
  scope: ProcessScope,
  databaseUrl: string,
): Promise<Member[]> {
  const directory = join(scope.dataDirectory, "mesh");
  const services = Object.keys(serviceStarters) as StartableService[];
  const renew = (): Promise<unknown> => ensureDevCertificates({ directory, services });
  await renew();
  const timer = setInterval(() => {
    renew().catch((thrown: unknown) => scope.log.error({ err: thrown }, "certificates could not be renewed"));
  }, certificateRenewalMs);
  scope.onStop("certificate renewal", async () => clearInterval(timer));

  const layout: readonly StartableService[] = [
    "credentials",
    "tools",
    "registry",
    "orchestrator",
    "orchestrator",
    "events",
    "gateway",
    "gateway",
  ];
  const ports = await freePorts(layout.length + 4);
  const placed = layout.map((service, index) => ({ service, address: `127.0.0.1:${ports[index]}` }));
  const addressesOf = (name: StartableService): string =>
    placed
      .filter(({ service }) => service === name)
      .map(({ address }) => address)
      .join(",");
  // Flags of this process reach the others as settings.
  const given = Object.entries(configuration.environment).filter(
    (entry): entry is [string, string] => entry[0].startsWith("CADRE_") && entry[1] !== undefined,
  );
  const shared = {
    ...Object.fromEntries(given),
    CADRE_DATA: scope.dataDirectory,
    CADRE_DATABASE_URL: databaseUrl,
    CADRE_MESH_CREDENTIALS: addressesOf("credentials"),
    CADRE_MESH_TOOLS: addressesOf("tools"),
    CADRE_MESH_REGISTRY: addressesOf("registry"),
    CADRE_MESH_ORCHESTRATOR: addressesOf("orchestrator"),
    CADRE_MESH_EVENTS: addressesOf("events"),
    CADRE_MESH_GATEWAY: addressesOf("gateway"),
    CADRE_MESH_CA_FILE: join(directory, "authority.pem"),
    CADRE_MESH_CERT_FILE: join(directory, "{service}.pem"),
    CADRE_MESH_KEY_FILE: join(directory, "{service}.key"),
  };
  // The first gateway has the public port that was asked for, the second one
  // the ports after its admin port; where a free port was asked for, free ones.
  const publicPort = configuration.gateway.CADRE_PORT;
  const adminPort = configuration.gateway.CADRE_ADMIN_PORT;
  const isFree = publicPort === 0;
  let gateways = 0;
  return placed.map(({ service, address }, index) => {
    const settings: Record<string, string> = { ...shared, CADRE_MESH_LISTEN: address };
    if (service === "gateway") {
      const nth = gateways++;
      const free = ports.slice(layout.length + 2 * nth);
      settings.CADRE_PORT = String(isFree ? free[0] : publicPort + 2 * nth);
      settings.CADRE_ADMIN_PORT = String(isFree ? free[1] : adminPort + 2 * nth);
    }
    scope.log.debug({ service, address, index }, "planned");
    return { service, settings };
  });
}

/** Runs a member for as long as the mesh runs: one that ends is started again. Resolves when it serves. */
async function keepRunning(member: Member, scope: ProcessScope): Promise<void> {
  let child: ChildProcess | undefined;
  let isStopping = false;
  const log = scope.log.child({ component: member.service });
  const { promise: firstReady, resolve: onFirstReady, reject: onNeverReady } = Promise.withResolvers<void>();
  scope.onStop(`process of ${member.service}`, async () => {
    isStopping = true;
    if (child !== undefined) await endChild(child);
  });
  const loop = async (): Promise<void> => {
    let waitMs = firstRestartMs;
    let wasReady = false;
    while (!isStopping) {
      const startedAt = performance.now();
      const running = launch(member);
      child = running.child;
      void running.ready.then((isReady) => {
        if (!isReady) return;
        wasReady = true;
        onFirstReady();
      });
      const code = await running.exited;
      if (isStopping) return;
      // What the configuration forbids does not get better by trying again.
      if (code === 78 || !wasReady) {
        onNeverReady(new Error(`${member.service} did not start (exit code ${code}): ${running.errors()}`));
        return;
      }
      waitMs = performance.now() - startedAt > 10_000 ? firstRestartMs : Math.min(waitMs * 2, maxRestartMs);
      log.warn({ code, pid: child.pid }, "a process ended; it is started again");
      await delay(waitMs);
    }
  };
  void loop();
  await firstReady;
}

function launch({ service, settings }: Member) {
  const program = fileURLToPath(new URL("../bin/cadre.js", import.meta.url));
  const child = spawn(process.execPath, [program, "serve", service, "--json"], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...settings },
  });
  let text = "";
  child.stderr.on("data", (chunk: Buffer) => {
    text = `${text}${chunk.toString()}`.slice(-10_000);
    process.stderr.write(chunk);
  });
  const exited = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
  const line = new Promise<boolean>((resolve) =>
    createInterface({ input: child.stdout }).once("line", () => resolve(true)),
  );
  return { child, exited, ready: Promise.race([line, exited.then(() => false)]), errors: () => text };
}

async function endChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), stopMs);
  await exited;
  clearTimeout(timer);
}

/** Ports that are free now; all are held until all are found, so that none comes twice. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      return server;
    }),
  );
  const ports = servers.map((server) => {
    const address = server.address();
    if (address === null || typeof address === "string") throw new TypeError("a TCP server has a port");
    return address.port;
  });
  await Promise.all(servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))));
  return ports;
}

function toScreen(members: readonly Member[], urls: readonly string[], scope: ProcessScope): string {
  return [
    `Cadre ${version} is ready, each service a process of its own. For development, not for production.`,
    "",
    ...urls.map((url) => `  URL        ${url}`),
    `  Data       ${scope.dataDirectory}`,
    `  Processes  ${members.map(({ service }) => service).join(", ")}`,
    "",
    "Ctrl-C stops all of it.",
    "",
  ].join("\n");
}
