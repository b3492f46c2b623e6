import { setTimeout as delay } from "node:timers/promises";
import { CadreError, createCadre } from "@cadre/sdk";
import { readTroubles } from "../../cli/server/mesh-health.ts";
import { describeVerdict, type Verdict } from "../support/checker.ts";
import type { ClientRecord } from "../support/client-log.ts";
import { InfrastructureError, reach, say } from "../support/fault-driver.ts";
import { startFaultWorld } from "../support/fault-world.ts";
import { type PostgresStop, startOwnPostgres } from "../support/own-postgres.ts";
import { openPostgresDoor, type PostgresKnock } from "../support/postgres-door.ts";
import { startServiceMesh } from "../support/service-mesh.ts";
import { underLoad } from "../support/steady-load.ts";
import type { Workload } from "../support/workload.ts";

export interface PostgresOutagesOptions {
  readonly runs: Workload;
  readonly turns: Workload;
  /** How it goes down each time. */
  readonly outages: readonly PostgresStop[];
  /** For how long. */
  readonly downMs: number;
}

/** Why a call failed, and when to come again. */
type Told = Pick<CadreError, "reason" | "retryAfterMs">;

export interface PostgresOutagesResult {
  /** Services that ended by themselves. */
  readonly ended: readonly string[];
  /** What callers were told while they got no run, with how often. */
  readonly refusals: Readonly<Record<string, number>>;
  /** The services of which health said in each outage that PostgreSQL is what they miss. */
  readonly missing: readonly string[];
  /** What somebody who asked for a run at the end of each outage was told. */
  readonly told: readonly Told[];
  /** From the stop until health said so, at most. */
  readonly longestUnnoticedMs: number;
  /** From the start until health said that everything serves, at most. */
  readonly longestReadyMs: number;
  /** From then until nobody was refused any more, at most. */
  readonly longestRefusingMs: number;
  /** Attempts of a service's process to connect within one second of an outage, at most. */
  readonly connectsPerSecond: Readonly<Record<string, number>>;
  readonly verdicts: { readonly runs: Verdict; readonly turns: Verdict };
}

/** Work before the first outage, and after each one. */
const workMs = 15_000;

/** Takes PostgreSQL away from a whole mesh, again and again, while callers insist on runs. */
export async function postgresOutages({
  runs,
  turns,
  outages,
  downMs,
}: PostgresOutagesOptions): Promise<PostgresOutagesResult> {
  await using opened = new AsyncDisposableStack();
  const postgres = await startOwnPostgres();
  opened.defer(() => postgres.dispose());
  const door = await openPostgresDoor(postgres.url);
  opened.defer(() => door.close());
  const mesh = await startServiceMesh({ databaseUrl: door.url });
  let keep = true;
  const world = await startFaultWorld({ name: "outages", launch: async () => mesh });
  opened.defer(() => world.dispose(keep));
  const impatient = createCadre({ baseUrl: mesh.url, apiKey: mesh.adminKey, retry: { maxAttempts: 1 } });
  const pids = mesh.services.map(({ pid }) => pid);

  const periods: { readonly fromMs: number; readonly toMs: number; readonly readyAtMs: number }[] = [];
  const missing: ReadonlySet<string>[] = [];
  const told: Told[] = [];
  let longestUnnoticedMs = 0;
  let longestReadyMs = 0;
  const hurt = async (): Promise<void> => {
    await delay(workMs);
    for (const how of outages) {
      world.note(`postgres ${how}`);
      const fromMs = Date.now();
      await postgres.stop(how);
      const stoppedMs = performance.now();
      await reach("health that tells of it", async () => !(await mesh.isReady()), { everyMs: 100 });
      longestUnnoticedMs = Math.max(longestUnnoticedMs, performance.now() - stoppedMs);
      await delay(downMs - (performance.now() - stoppedMs));
      missing.push(new Set(await whoMissesPostgres(mesh.adminUrl)));
      told.push(await refusalOf(() => runs.start(impatient, `outage-${told.length}`)));
      const toMs = Date.now();
      await postgres.start();
      const startedMs = performance.now();
      await reach("a mesh that serves again", () => mesh.isReady(), { everyMs: 100 });
      longestReadyMs = Math.max(longestReadyMs, performance.now() - startedMs);
      periods.push({ fromMs, toMs, readyAtMs: Date.now() });
      await delay(workMs);
    }
  };
  let startedTurns = 0;
  const startedRuns = await underLoad(world, runs, async () => {
    startedTurns = await underLoad(world, turns, hurt, "turn");
  });
  const judge = (workload: Workload, kind: string, floor: number): Promise<Verdict> =>
    world.judge(workload, { floor, healMs: 180_000, only: (run) => run.startsWith(kind) });
  const verdicts = {
    runs: await judge(runs, "run", startedRuns),
    turns: await judge(turns, "turn", startedTurns),
  };
  const result = {
    ended: mesh.services.flatMap(({ service, pid, isRunning }, index) =>
      isRunning && pid === pids[index] ? [] : [service],
    ),
    refusals: world.refusals(),
    missing: [...missing.reduce((each, other) => each.intersection(other))],
    told,
    longestUnnoticedMs: Math.round(longestUnnoticedMs),
    longestReadyMs: Math.round(longestReadyMs),
    longestRefusingMs: longestRefusing(world.client.records(), periods),
    connectsPerSecond: busiestSeconds(
      door.knocks.filter(({ atMs }) => periods.some(({ fromMs, toMs }) => atMs >= fromMs && atMs < toMs)),
      new Map(mesh.services.map(({ pid, service }) => [pid, service])),
    ),
  };
  say(JSON.stringify(result));
  for (const verdict of Object.values(verdicts)) say(describeVerdict(verdict));
  keep = verdicts.runs.problems.length + verdicts.turns.problems.length > 0;
  return { ...result, verdicts };
}

/** How long after health was well again a call failed, at most over the outages. */
function longestRefusing(
  records: readonly ClientRecord[],
  periods: readonly { readonly fromMs: number; readonly readyAtMs: number }[],
): number {
  const times = periods.flatMap(({ readyAtMs }, index) => {
    const untilMs = periods[index + 1]?.fromMs ?? Number.POSITIVE_INFINITY;
    return records
      .filter(({ phase, atMs }) => phase === "unknown" && atMs >= readyAtMs && atMs < untilMs)
      .map(({ atMs }) => atMs - readyAtMs);
  });
  return Math.max(0, ...times);
}

async function whoMissesPostgres(adminUrl: string): Promise<readonly string[]> {
  const troubles = await readTroubles(adminUrl);
  return troubles.filter((trouble) => trouble.includes(": postgres: ")).map((trouble) => trouble.split(":")[0] ?? "");
}

/** Makes a call that has to fail, and says with what. */
async function refusalOf(call: () => Promise<unknown>): Promise<Told> {
  try {
    await call();
  } catch (error) {
    if (error instanceof CadreError) return { reason: error.reason, retryAfterMs: error.retryAfterMs };
    throw error;
  }
  throw new InfrastructureError("a run was acknowledged, and there is no PostgreSQL");
}

/** The most attempts of one process within any second, by its service. */
function busiestSeconds(
  knocks: readonly PostgresKnock[],
  services: ReadonlyMap<number, string>,
): Readonly<Record<string, number>> {
  const byProcess = Map.groupBy(knocks, ({ name }) => Number(name.split(" ").at(-1)));
  const most: Record<string, number> = {};
  for (const [pid, own] of byProcess) {
    const service = services.get(pid) ?? `process ${pid}`;
    for (const { atMs: fromMs } of own) {
      const within = own.filter(({ atMs }) => atMs >= fromMs && atMs < fromMs + 1_000).length;
      most[service] = Math.max(most[service] ?? 0, within);
    }
  }
  return most;
}
