import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import type { TestProject } from "vitest/node";
import { startEmbeddedPostgres } from "../../services/runtime/postgres/embedded-server.ts";

declare module "vitest" {
  export interface ProvidedContext {
    /** The server that the tests share; each makes a database of its own there. */
    postgresUrl: string;
  }
}

/** Vitest's global setup: one PostgreSQL for all tests, in a temporary directory. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const dataDirectory = await mkdtemp(join(tmpdir(), "cadre test "));
  const server = await startEmbeddedPostgres({
    dataDirectory,
    log: pino({ level: "warn" }),
    // These databases live for seconds; what durability costs is tested with servers of their own.
    settings: { fsync: "off", max_connections: "300" },
  });
  project.provide("postgresUrl", server.url);
  return async () => {
    await server.stop();
    await rm(dataDirectory, { recursive: true, force: true });
  };
}
