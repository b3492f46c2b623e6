import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { inject } from "vitest";

/** A database of a test's own. */
export interface TestDatabase {
  /** For `openDatabase` and `migrate`. */
  readonly url: string;
  /** Removes it, and ends the connections to it. */
  drop(): Promise<void>;
}

/** Makes a fresh, empty database on the server that vitest's global setup started. */
export async function createTestDatabase(): Promise<TestDatabase> {
  const serverUrl = inject("postgresUrl");
  const name = `test_${randomBytes(8).toString("hex")}`;
  await execute(serverUrl, `create database ${name}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return { url: url.href, drop: () => drop(serverUrl, name) };
}

/** Tries again while a worker of autovacuum is there, which is a superuser's and must not be ended by others. */
async function drop(serverUrl: string, name: string): Promise<void> {
  const untilMs = performance.now() + 30_000;
  for (;;) {
    try {
      return await execute(serverUrl, `drop database if exists ${name} with (force)`);
    } catch (error) {
      const isWorker = error instanceof pg.DatabaseError && error.code === insufficientPrivilege;
      if (!isWorker || performance.now() > untilMs) throw error;
      await delay(100);
    }
  }
}

const insufficientPrivilege = "42501";

async function execute(url: string, statement: string): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
