import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import type { Logger } from "../log/log.ts";
import { backOffMs } from "../wait/back-off.ts";
import { describeError, toDatabaseError } from "./database-error.ts";

const waits = { firstMs: 200, mostMs: 2_000 } as const;

export interface ConnectWhenReadyOptions {
  /** As for `openDatabase`. */
  readonly url: string;
  /** What the connection is for, as PostgreSQL shows it. */
  readonly name: string;
  /** How long to wait for a PostgreSQL that is not there yet. */
  readonly waitMs: number;
  /** How long a statement waits for a lock. Default: for ever. */
  readonly lockTimeoutMs?: number;
  readonly log: Logger;
}

/**
 * A connection for what a start does once, before the pools are opened. Tries
 * until PostgreSQL is there. The caller ends it.
 *
 * @throws AppError if it is not there in time
 */
export async function connectWhenReady(options: ConnectWhenReadyOptions): Promise<pg.Client> {
  const { url, name, waitMs, lockTimeoutMs = 0, log } = options;
  const deadline = performance.now() + waitMs;
  for (let attempt = 1; ; attempt++) {
    const client = new pg.Client({
      connectionString: url,
      application_name: `cadre ${name} ${process.pid}`,
      lock_timeout: lockTimeoutMs,
      connectionTimeoutMillis: 5_000,
      keepAlive: true,
    });
    client.on("error", (error) => log.debug(describeError(error), "a connection of the start broke"));
    try {
      await client.connect();
      return client;
    } catch (error) {
      const waitingMs = backOffMs(attempt, waits);
      if (performance.now() + waitingMs > deadline) throw toDatabaseError(error, false);
      log.warn({ ...describeError(error), name, attempt }, "waiting for postgres");
      await delay(waitingMs);
    }
  }
}
