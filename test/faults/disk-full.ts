import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { ExportedRunSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { verifyLedger } from "../../cli/ledger/verify-ledger.ts";
import { describeVerdict, type Verdict } from "../support/checker.ts";
import { reach, say } from "../support/fault-driver.ts";
import { type FaultWorld, startFaultWorld } from "../support/fault-world.ts";
import { startOwnPostgres } from "../support/own-postgres.ts";
import { serves, startServiceMesh } from "../support/service-mesh.ts";
import { mountSmallDisk } from "../support/small-disk.ts";
import { underLoad } from "../support/steady-load.ts";
import type { Workload } from "../support/workload.ts";

/**
 * Whose disk is full:
 *
 * - `everything`: one process with its PostgreSQL, values, keys and logs.
 * - `services`: the values and logs of services in processes of their own.
 * - `database`: their PostgreSQL, with audit log and bus.
 */
export type FullDisk = "everything" | "services" | "database";

export interface DiskFullOptions {
  readonly disk: FullDisk;
  readonly workload: Workload;
  readonly fullMs: number;
}

export interface DiskFullResult {
  /** What callers were told while they got no run, with how often. */
  readonly refusals: Readonly<Record<string, number>>;
  /** Processes that ended by themselves. */
  readonly ended: readonly string[];
  /** From when there was room again until health said that everything serves. */
  readonly longestReadyMs: number;
  /** Runs whose ledger does not verify afterwards. */
  readonly damaged: readonly string[];
  readonly verdict: Verdict;
}

const workMs = 10_000;
/** What becomes free meanwhile is taken, too, each time after so many milliseconds. */
const fillEveryMs = 500;
/** Room for a PostgreSQL with some minutes' work, and for what a service writes. */
const megabytes: Readonly<Record<FullDisk, number>> = { everything: 256, services: 64, database: 256 };

/** Fills a disk for some time under work, and frees it. */
export async function diskFull({ disk: whose, workload, fullMs }: DiskFullOptions): Promise<DiskFullResult> {
  await using opened = new AsyncDisposableStack();
  const disk = mountSmallDisk(megabytes[whose]);
  opened.defer(() => disk.unmount());
  const { world, processes } = await startOn(whose, disk.path, opened);
  let keep = true;
  opened.defer(() => world.dispose(keep));
  const before = processes();

  let longestReadyMs = 0;
  const started = await underLoad(world, workload, async () => {
    await delay(workMs);
    world.note(`disk of ${whose}`);
    const untilMs = performance.now() + fullMs;
    while (performance.now() < untilMs) {
      disk.fill();
      await delay(fillEveryMs);
    }
    disk.free();
    const freedMs = performance.now();
    await reach("everything serves again", () => serves(world.server.adminUrl), { everyMs: 100, timeoutMs: 120_000 });
    longestReadyMs = Math.round(performance.now() - freedMs);
    await delay(workMs);
  });
  const verdict = await world.judge(workload, { floor: started, healMs: 240_000 });
  const after = new Set(processes());
  const result = {
    refusals: world.refusals(),
    ended: before.filter((name) => !after.has(name)),
    longestReadyMs,
    damaged: await damagedRuns(world),
  };
  say(JSON.stringify({ whose, ...result }));
  say(describeVerdict(verdict));
  keep = verdict.problems.length + result.damaged.length > 0;
  return { ...result, verdict };
}

/** A whole Cadre, part of which is on the disk, and the names of its processes that run. */
async function startOn(
  whose: FullDisk,
  path: string,
  opened: AsyncDisposableStack,
): Promise<{ readonly world: FaultWorld; readonly processes: () => readonly string[] }> {
  if (whose === "everything") {
    const world = await startFaultWorld({ name: "disk", dataDirectory: path });
    return { world, processes: () => (isAlive(world.server.pid) ? ["cadre"] : []) };
  }
  const postgres = await startOwnPostgres(whose === "database" ? path : undefined);
  opened.defer(() => postgres.dispose());
  const mesh = await startServiceMesh({
    databaseUrl: postgres.url,
    ...(whose === "services" ? { dataDirectory: path } : {}),
  });
  const world = await startFaultWorld({ name: "disk", launch: async () => mesh });
  return {
    world,
    processes: () => mesh.services.flatMap(({ isRunning, service, pid }) => (isRunning ? [`${service} ${pid}`] : [])),
  };
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false; // ESRCH
  }
}

/** Runs whose exported ledger has a problem, with the problem. */
async function damagedRuns({ cadre, client }: FaultWorld): Promise<readonly string[]> {
  const damaged: string[] = [];
  for (const { phase, id: runId = "" } of client.records()) {
    if (phase !== "acked") continue;
    const exported = create(ExportedRunSchema, { runId });
    for await (const entry of cadre.runs.export(runId)) exported.entries.push(entry);
    const report = verifyLedger(exported);
    if (!report.intact) damaged.push(`${runId} at ${report.entry}: ${report.problem}`);
  }
  return damaged;
}
