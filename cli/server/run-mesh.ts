import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { loadConfiguration, type ServerConfiguration } from "./configuration.ts";
import { explainFailedStart } from "./exit.ts";
import { settingsOf } from "./flags.ts";
import { awaitServing } from "./mesh-health.ts";
import { type MeshMember, planMembers, renewCertificates } from "./mesh-members.ts";
import type { ProcessScope } from "./process-scope.ts";
import { runServer } from "./run-server.ts";
import { startDatabase } from "./start-database.ts";
import { version } from "./version.ts";

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
    const members = await prepareMembers(configuration, scope, databaseUrl);
    await Promise.all(members.map((member) => keepRunning(member, scope)));
    const gateways = members.filter(({ service }) => service === "gateway").map(({ settings }) => settings);
    const urls = gateways.map(({ CADRE_PORT }) => `http://127.0.0.1:${CADRE_PORT}`);
    const adminUrls = gateways.map(({ CADRE_ADMIN_PORT }) => `http://127.0.0.1:${CADRE_ADMIN_PORT}`);
    await awaitServing(adminUrls, scope.log, scope.stopping);
    return options.json === true
      ? `${JSON.stringify({ url: urls[0], urls, admin_url: adminUrls[0], pid: process.pid })}\n`
      : toScreen(members, urls, scope);
  });
}

/** Certificates, which are kept good, and what each process is told. */
async function prepareMembers(
  { environment, gateway }: ServerConfiguration,
  scope: ProcessScope,
  databaseUrl: string,
): Promise<readonly MeshMember[]> {
  const { dataDirectory, log } = scope;
  await renewCertificates(dataDirectory);
  const timer = setInterval(() => {
    renewCertificates(dataDirectory).catch((thrown: unknown) =>
      log.error({ err: thrown }, "certificates could not be renewed"),
    );
  }, certificateRenewalMs);
  scope.onStop("certificate renewal", async () => clearInterval(timer));
  // Flags of this process reach the others as settings.
  const given = Object.entries(environment).filter(
    (entry): entry is [string, string] => entry[0].startsWith("CADRE_") && entry[1] !== undefined,
  );
  const members = await planMembers({
    dataDirectory,
    databaseUrl,
    settings: Object.fromEntries(given),
    ports: { public: gateway.CADRE_PORT, admin: gateway.CADRE_ADMIN_PORT },
  });
  for (const { service, settings } of members) log.debug({ service, address: settings.CADRE_MESH_LISTEN }, "planned");
  return members;
}

/** Runs a member for as long as the mesh runs: one that ends is started again. Resolves when it listens. */
async function keepRunning(member: MeshMember, scope: ProcessScope): Promise<void> {
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
      if (isStopping) {
        onNeverReady(new Error(`${member.service} was stopped while it started`));
        return;
      }
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

function launch({ service, settings }: MeshMember) {
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

function toScreen(members: readonly MeshMember[], urls: readonly string[], scope: ProcessScope): string {
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
