import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type pg from "pg";
import { readServerProcess } from "../../services/runtime/postgres/server-process.ts";
import { connectToEmbedded } from "../support/embedded-witness.ts";
import { eachAtOnce, InfrastructureError, say } from "../support/fault-driver.ts";
import { startFaultWorld } from "../support/fault-world.ts";
import { checkDurability, type Durability, readTrace, traceServer } from "../support/wal-trace.ts";
import type { Workload } from "../support/workload.ts";

export interface SyncsOptions {
  readonly workload: Workload;
  readonly runs: number;
  /** Changes the server before it is looked at, for a control. */
  readonly prepare?: (database: pg.Client) => Promise<void>;
}

/** How many entries were stored, and what became of each by the time of its acknowledgement. */
export interface SyncsResult {
  readonly entries: number;
  readonly durable: number;
  readonly problems: readonly string[];
}

const atOnce = 4;

/** Follows the embedded PostgreSQL with strace while runs are stored, and looks for the sync before each acknowledgement. */
export async function syncs(options: SyncsOptions): Promise<SyncsResult> {
  const { workload, runs } = options;
  await using opened = new AsyncDisposableStack();
  const directory = mkdtempSync(join(tmpdir(), "cadre syncs "));
  opened.defer(() => rmSync(directory, { recursive: true, force: true }));
  const world = await startFaultWorld({ name: "syncs", workers: 1 });
  opened.defer(() => world.dispose());
  const { dataDirectory } = world.server;
  const database = await connectToEmbedded(dataDirectory);
  opened.defer(() => database.end());
  await options.prepare?.(database);
  const server = await readServerProcess(join(dataDirectory, "postgres"));
  if (server === undefined) throw new InfrastructureError("no PostgreSQL runs");
  const file = join(directory, "trace");
  const tracer = await traceServer(server.pid, file);
  try {
    const names = Array.from({ length: runs }, (_, index) => `run-${index}`);
    await eachAtOnce(names, atOnce, async (run) => {
      const id = await world.start(workload, run);
      await workload.history(world.cadre, id, AbortSignal.timeout(60_000));
    });
  } finally {
    await tracer.stop();
  }
  const { rows } = await database.query<{ hash: Buffer }>("select hash from entry");
  const found = checkDurability(
    readTrace(file),
    rows.map(({ hash }) => hash),
  );
  const problems = [...found].flatMap(([hash, durability]) => describe(hash, durability));
  const durable = found.size - problems.length;
  say(`${durable} of ${found.size} entries were on disk when they were acknowledged`);
  for (const problem of problems.slice(0, 10)) say(`  ${problem}`);
  return { entries: found.size, durable, problems };
}

function describe(hash: string, durability: Durability): readonly string[] {
  return durability.type === "durable" ? [] : [`${hash.slice(0, 16)}… ${durability.type}: ${durability.why}`];
}
