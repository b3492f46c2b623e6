import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import type { TestProject } from "vitest/node";
import {
  DataDirectoryInUseError,
  resetDataDirectory,
  startEmbeddedPostgres,
} from "../../services/runtime/postgres/embedded-server.ts";

declare module "vitest" {
  export interface ProvidedContext {
    /** The server that the tests share; each makes a database of its own there. */
    postgresUrl: string;
  }
}

const log = pino({ level: "warn" });
const prefix = "cadre test ";

/** Vitest's global setup: one PostgreSQL for all tests, in a temporary directory. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  await removeAbandoned();
  const dataDirectory = await mkdtemp(join(tmpdir(), prefix));
  const server = await startEmbeddedPostgres({
    dataDirectory,
    log,
    // These databases live for seconds; what durability costs is tested with servers of their own.
    settings: { fsync: "off", max_connections: "300" },
  });
  project.provide("postgresUrl", server.url);
  return async () => {
    await server.stop();
    await rm(dataDirectory, { recursive: true, force: true });
  };
}

/** The server outlives a test run that was killed: removes those that nobody uses any more. */
async function removeAbandoned(): Promise<void> {
  const tenMinutesAgo = Date.now() - 600_000;
  for (const name of await readdir(tmpdir())) {
    const dataDirectory = join(tmpdir(), name);
    if (!name.startsWith(prefix)) continue;
    try {
      if ((await stat(dataDirectory)).mtimeMs > tenMinutesAgo) continue;
      await resetDataDirectory({ dataDirectory, log });
      await rm(dataDirectory, { recursive: true, force: true });
    } catch (error) {
      if (!(error instanceof DataDirectoryInUseError)) log.warn({ err: error, dataDirectory }, "cannot remove it");
    }
  }
}
