import type pg from "pg";
import { keyOf } from "../../services/tools/domain/call-key.ts";
import { describeVerdict, type Verdict } from "../support/checker.ts";
import { connectToEmbedded } from "../support/embedded-witness.ts";
import { eachAtOnce, InfrastructureError, reach, say, seededRandom } from "../support/fault-driver.ts";
import { startFaultWorld } from "../support/fault-world.ts";
import {
  changeByte,
  deleteTail,
  readStoredRuns,
  restoreRow,
  type StoredRun,
  swapEntries,
} from "../support/journal-damage.ts";
import type { Workload } from "../support/workload.ts";

/**
 * What is done to a stored run:
 *
 * - `byte`: a bit of an entry, or of the hash that the run ends with, is changed.
 * - `moved`: an entry changes places with the one of that number of another run.
 * - `tail`: its last entries are deleted.
 * - `old-row`: its row is the one that it had some entries ago.
 */
const kinds = ["old-row", "byte", "moved", "tail"] as const;
export type Damage = (typeof kinds)[number];

export interface DamageOptions {
  /** Runs whose tools work long enough to be all open at one time, with some steps behind them. */
  readonly workload: Workload;
  /** How many runs are damaged in each way; even for `moved`, which goes by pairs. */
  readonly counts: Readonly<Record<Damage, number>>;
  /** Runs that are left as they are, and are to succeed. */
  readonly sound: number;
  /** Entries that every run has before it is damaged. */
  readonly entries: number;
  readonly settings?: Readonly<Record<string, string>>;
  /** A control is to overlook damage, so that is no evidence to keep. */
  readonly isControl?: boolean;
}

/** What became of one kind of damage. */
export interface Detection {
  readonly damaged: number;
  readonly detected: number;
}

export interface DamageResult {
  readonly found: Readonly<Record<Damage, Detection>>;
  /** Calls of damaged runs that were not asked for before the damage, and were made after it. */
  readonly executed: readonly string[];
  /** On the runs that were left as they were. */
  readonly verdict: Verdict;
}

const startsAtOnce = 16;
const healMs = 120_000;

/** Kills the server over open runs, damages what is stored of them, and starts it again. */
export async function damage(options: DamageOptions): Promise<DamageResult> {
  const { workload, counts, sound, entries } = options;
  const random = seededRandom("damage");
  await using opened = new AsyncDisposableStack();
  let keep = true;
  const world = await startFaultWorld({ name: "damage", workers: 1, settings: options.settings ?? {} });
  opened.defer(() => world.dispose(keep));
  const database = await connectToEmbedded(world.server.dataDirectory);
  opened.defer(() => database.end());

  const wanted = kinds.reduce((sum, kind) => sum + counts[kind], sound);
  const runOf = new Map<string, string>();
  const names = Array.from({ length: wanted }, (_, index) => `run-${index}`);
  await eachAtOnce(names, startsAtOnce, async (run) => void runOf.set(await world.start(workload, run), run));
  let old: ReadonlyMap<string, StoredRun> = new Map();
  await reach("runs with steps behind them", async () => {
    const now = await readStoredRuns(database, runOf.keys());
    const heads = [...now.values()].map(({ head }) => head);
    // The rows as they were before they moved on.
    if (old.size < wanted || Math.min(...heads) < entries / 2) old = now;
    return now.size === wanted && Math.min(...heads) >= entries;
  });
  await world.server.kill();
  const stored = await readStoredRuns(database, runOf.keys());
  if ([...stored.values()].some(({ ended }) => ended)) throw new InfrastructureError("a run ended before its damage");

  const left = new Map(stored);
  const take = (kind: Damage): readonly (readonly [string, StoredRun])[] => {
    const fit = [...left].filter(([id, run]) => kind !== "old-row" || (old.get(id)?.head ?? run.head) < run.head);
    const taken = fit.slice(0, counts[kind]);
    if (taken.length < counts[kind]) throw new InfrastructureError(`only ${taken.length} runs for ${kind}`);
    for (const [id] of taken) left.delete(id);
    return taken;
  };
  const damaged = new Map<Damage, readonly string[]>();
  for (const kind of kinds) {
    const taken = take(kind);
    damaged.set(
      kind,
      taken.map(([id]) => id),
    );
    for (const [index, [id, run]] of taken.entries()) {
      const other = taken[index + 1]?.[1];
      if (kind === "byte") await changeByte(database, random, run);
      if (kind === "tail") await deleteTail(database, random, run);
      if (kind === "old-row") await restoreRow(database, old.get(id) ?? run);
      if (kind === "moved" && index % 2 === 0 && other !== undefined) await swapEntries(database, random, run, other);
    }
  }

  const ids = new Set([...damaged.values()].flat());
  const runs = new Set([...ids].map((id) => runOf.get(id) ?? ""));
  const asked = await askedKeys(database);
  await world.restartServer();
  const verdict = await world.judge(workload, { floor: sound, healMs, only: (run) => !runs.has(run) });
  const detected = new Set<string>();
  await eachAtOnce(ids, startsAtOnce, async (id) => {
    if (await workload.isDamaged(world.cadre, id)) detected.add(id);
  });
  const executed = world.ledger
    .records()
    .flatMap(({ run, step, key }) => (runs.has(run) && !asked.has(key) ? [`${run}/${step}`] : []));
  const found = Object.fromEntries(
    [...damaged].map(([kind, those]) => [
      kind,
      { damaged: those.length, detected: those.filter((id) => detected.has(id)).length },
    ]),
  ) as Record<Damage, Detection>;
  say(JSON.stringify({ ...found, executed: executed.length }));
  for (const [kind, those] of damaged) {
    const missed = those.filter((id) => !detected.has(id));
    if (missed.length > 0) say(`  ${kind} unnoticed: ${missed.slice(0, 5).join(", ")}`);
  }
  say(describeVerdict(verdict));
  const isBroken = verdict.problems.length > 0 || detected.size < ids.size || executed.length > 0;
  keep = isBroken && options.isControl !== true;
  return { found, executed, verdict };
}

/** The keys of the calls that tools were asked for; they go on, whatever becomes of their runs. */
async function askedKeys(database: pg.Client): Promise<ReadonlySet<string>> {
  const { rows } = await database.query<{ key: string }>("select key from tools.call");
  return new Set(rows.map(({ key }) => keyOf(key)));
}
