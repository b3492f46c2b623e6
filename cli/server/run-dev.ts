import { rm } from "node:fs/promises";
import { join } from "node:path";
import { confirm, isCancel } from "@clack/prompts";
import pino from "pino";
import { resetDataDirectory } from "../../services/runtime/postgres/embedded-server.ts";
import { dataDirectoryOf, loadConfiguration, type ServerConfiguration } from "./configuration.ts";
import type { RunningDev } from "./dev.ts";
import { explainFailedStart } from "./exit.ts";
import { settingsOf } from "./flags.ts";
import { runServer } from "./run-server.ts";
import { startDatabase } from "./start-database.ts";
import { version } from "./version.ts";

/** `cadre dev`. Resolves with the exit code when the process was told to end. */
export async function runDev(options: Readonly<Record<string, unknown>>): Promise<number> {
  let configuration: ServerConfiguration;
  try {
    configuration = loadConfiguration(settingsOf(options));
    if (options.reset === true && !(await reset(configuration, options.yes === true))) return 0;
  } catch (thrown) {
    return explainFailedStart(thrown);
  }
  return runServer(configuration, "cadre", async (scope) => {
    // The services take about as long to load as PostgreSQL takes to start, which is other processes' work.
    const loadServices = () => import("./dev.ts");
    const named = configuration.platform.CADRE_DATABASE_URL;
    const databaseUrl = named ?? (await startDatabase(scope, () => void loadServices()));
    const { startDev } = await loadServices();
    const running = await startDev(configuration, scope, databaseUrl);
    return options.json === true ? toJson(running) : toScreen(configuration, running);
  });
}

async function reset(configuration: ServerConfiguration, isSure: boolean): Promise<boolean> {
  const dataDirectory = dataDirectoryOf(configuration);
  const answer = isSure || (await confirm({ message: `Delete everything in ${dataDirectory}?`, initialValue: false }));
  if (isCancel(answer) || !answer) return false;
  await resetDataDirectory({ dataDirectory, log: pino({ enabled: false }) });
  // What belongs to the database that is gone: the first key, the keys that seal, the mesh's certificates, blobs.
  for (const entry of ["admin.key", "keys", "mesh", "blobs"]) {
    await rm(join(dataDirectory, entry), { recursive: true, force: true });
  }
  return true;
}

function toJson({ url, adminUrl }: RunningDev): string {
  return `${JSON.stringify({ url, admin_url: adminUrl, pid: process.pid })}\n`;
}

function toScreen(configuration: ServerConfiguration, { url, adminUrl, firstKey }: RunningDev): string {
  const dataDirectory = dataDirectoryOf(configuration);
  const isProduction = configuration.platform.CADRE_MODE === "production";
  const lines = [
    `Cadre ${version} is ready${isProduction ? "." : ". This is the embedded mode: for development, not for production."}`,
    "",
    `  URL       ${url}`,
    `  Admin     ${adminUrl} (metrics and health, this machine only)`,
    `  Data      ${dataDirectory}`,
    `  Key file  ${join(dataDirectory, "admin.key")} (the org's owner key)`,
    ...(firstKey === undefined ? [] : [`  Key       ${firstKey} (shown this once)`]),
    "",
    "Try next, in a second shell:",
    "",
    "  npx cadre chat",
    '  npx cadre chat --message "calculator: 6 * 7"',
    "  npx cadre doctor",
    "",
    "Ctrl-C stops it.",
    "",
  ];
  return lines.join("\n");
}
