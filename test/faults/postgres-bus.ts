import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import { startEmbeddedPostgres } from "../../services/runtime/postgres/embedded-server.ts";
import { type BusKillsOptions, type BusKillsVerdict, killBus } from "../support/bus-kills.ts";
import { reach } from "../support/fault-driver.ts";

/** Kills the bus with its database: a PostgreSQL of its own, with fsync, that ends at once and recovers. */
export async function crashPostgresBus(
  options: Omit<BusKillsOptions, "databaseUrl" | "kafka" | "fault">,
): Promise<BusKillsVerdict> {
  const dataDirectory = await mkdtemp(join(tmpdir(), "cadre test "));
  const server = await startEmbeddedPostgres({ dataDirectory, log: pino({ level: "silent" }) });
  try {
    return await killBus({
      ...options,
      databaseUrl: server.url,
      fault: {
        async begin() {
          const { pid } = server;
          process.kill(pid, "SIGQUIT"); // `pg_ctl stop -m immediate`
          await reach("another PostgreSQL", () => server.pid !== pid);
        },
        end: async () => undefined, // by itself
      },
    });
  } finally {
    await server.stop();
    await rm(dataDirectory, { recursive: true, force: true });
  }
}
