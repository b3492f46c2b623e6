import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { StartableService } from "../../cli/server/start-service.ts";
import { describeVerdict, type Verdict } from "../support/checker.ts";
import { createFakeClock } from "../support/fake-clock.ts";
import { reach, say, witnessDirectory } from "../support/fault-driver.ts";
import { startFaultWorld } from "../support/fault-world.ts";
import type { LedgerRecord } from "../support/ledger.ts";
import { startOwnPostgres } from "../support/own-postgres.ts";
import { timedWorkload } from "../support/run-workload.ts";
import { startServiceMesh } from "../support/service-mesh.ts";
import { underLoad } from "../support/steady-load.ts";

export interface ClockSkewOptions {
  /** Whose clock is set; of several processes the first one's. */
  readonly services: readonly StartableService[];
  /** How far, each in turn. */
  readonly skewsSeconds: readonly number[];
  /** Settings and environment of all processes. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** What was seen while a clock was off. */
export interface SkewSeen {
  readonly service: StartableService;
  readonly seconds: number;
  /** How far its log is off, in seconds. */
  readonly logged: number;
  /** Why calls of it or to it were refused, as a log has it; empty if none does. */
  readonly told: string;
  /** Runs that began long before its clock was right again, and went on only then. */
  readonly stood: number;
}

export interface ClockSkewResult {
  readonly skews: readonly SkewSeen[];
  /** Runs whose timer fired before its time. */
  readonly early: readonly string[];
  readonly verdict: Verdict;
}

const skewedMs = 30_000;
const healedMs = 8_000;
/** How long each run waits between its two calls. */
const waitMs = 4_000;
/** Whoever goes on with a run does so within that time of its first call, wait included; a process that died takes ten seconds. */
const goesOnMs = 20_000;

/** Sets the clock of one process of a mesh to another time, and right again, under runs that wait for timers. */
export async function clockSkew({ services, skewsSeconds, settings }: ClockSkewOptions): Promise<ClockSkewResult> {
  await using opened = new AsyncDisposableStack();
  const postgres = await startOwnPostgres();
  opened.defer(() => postgres.dispose());
  const directory = witnessDirectory("clocks");
  opened.defer(() => directory.remove());
  const clocks = new Map(services.map((service) => [service, createFakeClock(directory.path, service)]));
  const mesh = await startServiceMesh({
    databaseUrl: postgres.url,
    // Every request leaves a line, so also a process that has nothing to complain of shows its clock.
    settings: { ...settings, CADRE_LOG_LEVEL: "debug" },
    environmentOf: (service, nth) => (nth === 0 ? (clocks.get(service)?.environment ?? {}) : {}),
  });
  const workload = timedWorkload({ stepMs: 100, waitMs });
  let keep = true;
  const world = await startFaultWorld({ name: "clocks", launch: async () => mesh });
  opened.defer(() => world.dispose(keep));

  const skews: (Omit<SkewSeen, "stood"> & { readonly rightAtMs: number })[] = [];
  const started = await underLoad(world, workload, async () => {
    await delay(healedMs);
    for (const [service, clock] of clocks) {
      for (const seconds of skewsSeconds) {
        world.note(`${service} ${seconds} s`);
        const pid = mesh.services.find((process) => process.service === service)?.pid ?? 0;
        const logs = openLogs(join(mesh.dataDirectory, "logs"));
        clock.set(seconds);
        await delay(skewedMs);
        const lines = logs();
        const logged = loggedOffset(lines, pid);
        skews.push({ service, seconds, logged, told: toldReason(lines), rightAtMs: Date.now() });
        clock.set(0);
        say(JSON.stringify(skews.at(-1)));
        await reach("a mesh that serves again", () => mesh.isReady(), { everyMs: 100, timeoutMs: 120_000 });
        await delay(healedMs);
      }
    }
  });
  const verdict = await world.judge(workload, { floor: started, healMs: 180_000 });
  const gaps = gapsBetweenCalls(world.ledger.records());
  const early = gaps.filter(({ fromMs, toMs }) => toMs - fromMs < waitMs).map(({ run }) => run);
  const seen = skews.map(({ rightAtMs, ...skew }) => ({
    ...skew,
    stood: gaps.filter(({ fromMs, toMs }) => fromMs < rightAtMs - goesOnMs && toMs >= rightAtMs).length,
  }));
  say(JSON.stringify({ skews: seen, early }));
  say(describeVerdict(verdict));
  keep = verdict.problems.length + early.length > 0;
  return { skews: seen, early, verdict };
}

/** From the effect of each run's first call to when its second one was made first. */
interface Gap {
  readonly run: string;
  readonly fromMs: number;
  readonly toMs: number;
}

function gapsBetweenCalls(records: readonly LedgerRecord[]): readonly Gap[] {
  const toMs = new Map<string, number>();
  for (const { type, step, run, atMs } of records) {
    if (type === "called" && step === "after") toMs.set(run, Math.min(atMs, toMs.get(run) ?? atMs));
  }
  return records.flatMap(({ type, step, run, applied, atMs }) =>
    type === "effect" && step === "before" && applied
      ? [{ run, fromMs: atMs, toMs: toMs.get(run) ?? Number.POSITIVE_INFINITY }]
      : [],
  );
}

/** A line of a process's log, as far as it matters here. */
interface LogLine {
  readonly pid: number;
  readonly time: string;
  readonly err?: { readonly message?: string };
}

/** Reads what is logged from now on, each time from here. */
function openLogs(directory: string): () => readonly LogLine[] {
  const read = (): ReadonlyMap<string, string> =>
    new Map(readdirSync(directory).map((name) => [name, readFileSync(join(directory, name), "utf8")]));
  const before = new Map([...read()].map(([name, text]) => [name, text.length]));
  return () =>
    [...read()].flatMap(([name, text]) =>
      text
        .slice(before.get(name) ?? 0)
        .split("\n")
        .slice(0, -1)
        .map((line) => JSON.parse(line) as LogLine),
    );
}

/** How far a process's last line is off, in seconds; it may be some seconds old. */
function loggedOffset(lines: readonly LogLine[], pid: number): number {
  const last = lines.findLast((line) => line.pid === pid);
  return last === undefined ? Number.NaN : Math.round((Date.parse(last.time) - Date.now()) / 1_000);
}

function toldReason(lines: readonly LogLine[]): string {
  return lines.find(({ err }) => err?.message?.includes("clocks") === true)?.err?.message ?? "";
}
