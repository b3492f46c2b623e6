import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import { describeVerdict, type Verdict } from "../support/checker.ts";
import { connectToEmbedded, storedId } from "../support/embedded-witness.ts";
import { InfrastructureError, reach, say, seededRandom } from "../support/fault-driver.ts";
import { type FaultWorld, startFaultWorld } from "../support/fault-world.ts";
import type { Workload } from "../support/workload.ts";

export interface ZombiesOptions {
  /** Runs whose tools work for about a second, so that steps are in flight. */
  readonly workload: Workload;
  readonly rounds: number;
  readonly leaseMs: number;
  readonly settings?: Readonly<Record<string, string>>;
  /** Changes the store before anything is stored, for a control. */
  readonly prepare?: (database: pg.Client) => Promise<void>;
  /** A control: what is waited for is a write of a woken process, and no evidence is kept. */
  readonly isControl?: boolean;
}

export interface ZombiesResult {
  /** Rounds in which the stopped process had a step in flight, and its successor went on before it was woken. */
  readonly rounds: number;
  /** Entries that were accepted from a process after another one had taken over. */
  readonly accepted: number;
  readonly verdict: Verdict;
}

const runsPerRound = 8;
const lateRuns = 6;

/**
 * Stops one of two orchestrators with SIGSTOP while it has steps in flight, for
 * twice its lease and until its successor has gone on with them; has more runs
 * started meanwhile, some of which come to the stopped process; then wakes it.
 */
export async function zombies(options: ZombiesOptions): Promise<ZombiesResult> {
  const { workload, leaseMs, isControl = false } = options;
  const random = seededRandom("zombies");
  const startedMs = performance.now();
  let keep = true;
  const world = await startFaultWorld({
    name: "zombies",
    topology: "mesh",
    settings: { ...options.settings, CADRE_ORCHESTRATOR_LEASE_MS: String(leaseMs) },
  });
  const database = await connectToEmbedded(world.server.dataDirectory);
  await options.prepare?.(database);
  const starting: Promise<string>[] = [];
  const start = (): Promise<string> => {
    const started = world.start(workload, `run-${starting.length}`);
    started.catch(() => undefined); // thrown at the end
    starting.push(started);
    return started;
  };
  let rounds = 0;
  const fenced: { readonly writer: bigint; readonly pos: bigint }[] = [];
  try {
    for (let tries = 0; rounds < options.rounds; tries += 1) {
      if (tries === options.rounds * 2)
        throw new InfrastructureError("the stopped process had no step in flight too often");
      if (!isControl || tries === 0) await reach("two owners", async () => (await owners(database)) === 2);
      const ids = await Promise.all(Array.from({ length: runsPerRound }, start));
      await reach("steps in flight", () => inFlight(world, workload).size >= runsPerRound);
      await delay(random.between(0, 300));
      const victim = random.pick(world.orchestrators());
      world.note(`orchestrator ${victim} stopped`, { isQuiet: true });
      // On a busy machine some lose their short lease without being stopped.
      const fencedBefore = await fencedWriters(database);
      process.kill(victim, "SIGSTOP");
      try {
        const stoppedMs = performance.now();
        const before = await places(database, ids);
        // Some of these come to the process that is stopped, and wait there.
        for (let late = 0; late < lateRuns; late += 1) void start();
        let zombie: { readonly writer: bigint; readonly pos: bigint } | undefined;
        await reach("the lease's end", async () => (zombie = await newlyFenced(database, fencedBefore)) !== undefined);
        if (zombie === undefined) throw new InfrastructureError("nobody was fenced");
        fenced.push(zombie);
        const { writer } = zombie;
        const cutOff = [...before].filter(([, place]) => place.writer === writer && !place.ended);
        if (cutOff.length > 0) {
          await reach("the successor's progress", async () => {
            const now = await places(database, ids);
            return cutOff.some(([id, place]) => (now.get(id)?.head ?? 0) > place.head);
          });
          rounds += 1;
        }
        await delay(Math.max(0, 2 * leaseMs - (performance.now() - stoppedMs)));
      } finally {
        process.kill(victim, "SIGCONT");
      }
      if (!isControl) await reach("its return", async () => (await owners(database)) === 2);
      else if (rounds > 0) await reach("a write of its", async () => (await acceptedOf(database, fenced)) > 0);
    }
    await Promise.all(starting);
    // Runs that two write to may never end.
    const healMs = isControl ? 1_000 : 120_000;
    const verdict = await world.judge(workload, { floor: options.rounds * runsPerRound, healMs });
    const accepted = await acceptedOf(database, fenced);
    say(
      `${rounds} zombies, ${accepted} writes of theirs accepted, in ${Math.round((performance.now() - startedMs) / 1_000)} s`,
    );
    say(describeVerdict(verdict));
    keep = !isControl && (accepted > 0 || verdict.problems.length > 0);
    return { rounds, accepted, verdict };
  } finally {
    await database.end();
    await world.dispose(keep);
  }
}

/** Runs with a step that began and whose effect the handler still has before or behind it. */
function inFlight(world: FaultWorld, workload: Workload): ReadonlySet<string> {
  const counts = new Map<string, number>();
  for (const { type, run, applied } of world.ledger.records()) {
    if (type === "effect" && applied) counts.set(run, (counts.get(run) ?? 0) + 1);
    else if (!counts.has(run)) counts.set(run, 0);
  }
  return new Set([...counts].flatMap(([run, effects]) => (effects < workload.steps.length ? [run] : [])));
}

/** Writers that live and have shards. */
async function owners(database: pg.Client): Promise<number> {
  const { rows } = await database.query<{ count: string }>(
    "select count(distinct s.writer) as count from shard s join writer w using (writer) where not w.fenced and w.lease_until > clock_timestamp()",
  );
  return Number(rows[0]?.count);
}

interface Place {
  readonly writer: bigint;
  readonly head: number;
  readonly ended: boolean;
}

/** Who owned the shard of each run, and how far it was. */
async function places(database: pg.Client, ids: readonly string[]): Promise<ReadonlyMap<string, Place>> {
  const { rows } = await database.query<{ id: string; writer: string; head: number; ended: boolean }>(
    `select coalesce(r.session_id, r.run_id) as id, s.writer, r.head, r.ended from run r join shard s using (shard)
      where coalesce(r.session_id, r.run_id) = any($1::uuid[])`,
    [ids.map(storedId)],
  );
  return new Map(rows.map((row) => [row.id, { writer: BigInt(row.writer), head: row.head, ended: row.ended }]));
}

async function fencedWriters(database: pg.Client): Promise<readonly string[]> {
  const { rows } = await database.query<{ writer: string }>("select writer from writer where fenced");
  return rows.map(({ writer }) => writer);
}

/** The writer that was fenced since; undefined while there is none. */
async function newlyFenced(
  database: pg.Client,
  before: readonly string[],
): Promise<{ readonly writer: bigint; readonly pos: bigint } | undefined> {
  const { rows } = await database.query<{ writer: string; pos: string }>(
    "select writer, pos from writer where fenced and not writer = any($1::bigint[])",
    [before],
  );
  const [row] = rows;
  return row === undefined ? undefined : { writer: BigInt(row.writer), pos: BigInt(row.pos) };
}

/** Entries that writers stored after they were fenced. */
async function acceptedOf(
  database: pg.Client,
  fenced: readonly { readonly writer: bigint; readonly pos: bigint }[],
): Promise<number> {
  let accepted = 0;
  for (const { writer, pos } of fenced) accepted += Number((await positionOf(database, writer)) - pos);
  return accepted;
}

async function positionOf(database: pg.Client, writer: bigint): Promise<bigint> {
  const { rows } = await database.query<{ pos: string }>("select pos from writer where writer = $1", [String(writer)]);
  return BigInt(rows[0]?.pos ?? -1);
}
