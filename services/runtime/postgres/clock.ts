import { ConfigurationError } from "../config/settings.ts";
import type { Logger } from "../log/log.ts";
import { connectWhenReady } from "./connect-when-ready.ts";
import { toDatabaseError } from "./database-error.ts";

/** How far the clock of this machine may be off the database's, in milliseconds. */
export const maxClockSkewMs = 60_000;

export interface ClockCheckOptions {
  /** As for `openDatabase`. */
  readonly url: string;
  readonly log: Logger;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
  /** How long to wait for a PostgreSQL that is not there yet. Default 5 minutes. */
  readonly waitMs?: number;
}

/**
 * Refuses a machine whose clock is more than a minute off the database's:
 * leases and limits run by the database's clock, tokens and certificates by the
 * machine's, and a credential must not outlive its end by one of them.
 *
 * @throws ConfigurationError if it is; AppError if the database cannot be asked
 */
export async function assertClockAgrees(options: ClockCheckOptions): Promise<void> {
  const { url, log, now = Date.now, waitMs = 300_000 } = options;
  const client = await connectWhenReady({ url, name: "clock", waitMs, log });
  try {
    const askedMs = now();
    const { rows } = await client.query<{ ms: number }>(
      "select (1000 * extract(epoch from clock_timestamp()))::float8 as ms",
    );
    const answeredMs = now();
    const skewMs = (rows[0]?.ms ?? Number.NaN) - (askedMs + answeredMs) / 2;
    // The database looked at its clock at some moment in between.
    const uncertaintyMs = (answeredMs - askedMs) / 2;
    if (Math.abs(skewMs) <= maxClockSkewMs + uncertaintyMs) return;
    const seconds = Math.round(Math.abs(skewMs) / 1_000);
    const side = skewMs > 0 ? "behind" : "ahead of";
    throw new ConfigurationError([
      `the clock of this machine is ${seconds} s ${side} the database's, more than ${maxClockSkewMs / 1_000} s: synchronise both (NTP)`,
    ]);
  } catch (error) {
    throw error instanceof ConfigurationError ? error : toDatabaseError(error, true);
  } finally {
    await client.end().catch(() => undefined); // broken already, which the error tells
  }
}
