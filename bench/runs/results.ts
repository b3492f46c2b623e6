import { type Comparison, formatFigure, median, type Table } from "../report.ts";
import type { ContestantResult } from "./compare.ts";
import type { FlatFigure } from "./flat.ts";
import type { Figures } from "./measure.ts";
import type { TimerFigures } from "./timers.ts";

/** Everything that was measured in one run of the benchmark; what was not asked for is missing. */
export interface Results {
  readonly machine: string;
  readonly startedAt: Date;
  readonly ours?: ContestantResult;
  readonly restate?: ContestantResult;
  readonly dbos?: ContestantResult;
  /** Cadre again, its steps done elsewhere. */
  readonly elsewhere?: readonly ContestantResult[];
  /** Milliseconds that a row took to be committed by Cadre's PostgreSQL, of each sample. */
  readonly commitsMs?: readonly number[];
  readonly postgres?: { readonly version: string; readonly settings: readonly string[] };
  readonly flat?: readonly FlatFigure[];
  readonly timers?: TimerFigures;
}

/** The systems that were compared, Cadre first. */
export function systemsOf({ ours, ...results }: Results): readonly ContestantResult[] {
  return [...(ours === undefined ? [] : [ours]), ...peersOf(results)];
}

function peersOf({ restate, dbos }: Pick<Results, "restate" | "dbos">): readonly ContestantResult[] {
  return [restate, dbos].filter((peer) => peer !== undefined);
}

const bench = "runs";
/** The load that targets are about, beside a run alone. */
const together = 50;

/** What each system did under each load. */
export function loadTable(results: Results): Table {
  const headings = [
    "system",
    "at once",
    "runs/s",
    "steps/s",
    "p50 ms",
    "p95 ms",
    "CPU s/1,000 steps",
    "driver's CPU s",
    "data B/step",
    "log B/step",
    "syncs/step alone",
  ];
  const rows = [...systemsOf(results), ...(results.elsewhere ?? [])].flatMap(({ name, figures, syncsOfStep }) =>
    figures.map((figure) => [
      name,
      `${figure.atOnce}`,
      formatFigure(figure.runsPerSecond),
      formatFigure(figure.stepsPerSecond),
      formatFigure(figure.p50Ms),
      formatFigure(figure.p95Ms),
      formatFigure(figure.cpuSeconds),
      formatFigure(figure.driverCpuSeconds),
      formatFigure(figure.dataBytes),
      figure.logBytes === undefined ? "in data" : formatFigure(figure.logBytes),
      figure.atOnce === 1 && syncsOfStep !== undefined ? formatFigure(syncsOfStep) : "",
    ]),
  );
  return [headings, ...rows];
}

/** Everything that there is a target for, as far as it was measured. */
export function comparisonsOf(results: Results): readonly Comparison[] {
  return [...throughput(results), ...latency(results), ...flatness(results), ...timers(results)];
}

function throughput(results: Results): readonly Comparison[] {
  const own = figuresAt(results.ours, together);
  if (own === undefined) return [];
  const comparison = { bench, what: `steps/s, ${together} runs at once`, ours: own.stepsPerSecond };
  const beside = rank(peersOf(results), together, (one, other) => other.stepsPerSecond - one.stepsPerSecond);
  return [
    { ...comparison, peer: "required", theirs: 10_000, target: "≥ 1" },
    ...beside.map(({ name, figures }, place) => ({
      ...comparison,
      peer: name,
      theirs: figures.stepsPerSecond,
      target: place === 0 ? "≥ 4" : "",
    })),
  ];
}

function latency(results: Results): readonly Comparison[] {
  const own = figuresAt(results.ours, 1);
  if (own === undefined) return [];
  const comparison = { bench, what: "a run alone, p50 ms", ours: own.p50Ms };
  const commitMs = median(results.commitsMs ?? []);
  const beside = rank(peersOf(results), 1, (one, other) => one.p50Ms - other.p50Ms);
  return [
    ...beside.map(({ name, figures }, place) => ({
      ...comparison,
      peer: name,
      theirs: figures.p50Ms,
      target: place === 0 ? "≤ 0.5" : "",
    })),
    {
      ...comparison,
      peer: `10 commits of ${commitMs.toFixed(2)} ms + 3 ms`,
      theirs: 10 * commitMs + 3,
      target: "≤ 1",
    },
  ];
}

function flatness({ flat = [] }: Results): readonly Comparison[] {
  const [first, ...more] = flat;
  if (first === undefined) return [];
  return more.map(({ open, stepsPerSecond }) => ({
    bench,
    what: `steps/s, ${together} at once beside ${open.toLocaleString("en-US")} open runs`,
    ours: stepsPerSecond,
    peer: `beside ${first.open}`,
    theirs: first.stepsPerSecond,
    target: "0.85 to 1.15",
  }));
}

function timers({ timers: figures }: Results): readonly Comparison[] {
  if (figures === undefined) return [];
  const { timers: count, idleSeconds, cpuSecondsWith, cpuSecondsWithout } = figures;
  return [
    {
      bench,
      what: `CPU s in ${idleSeconds} s, idle with ${count.toLocaleString("en-US")} timers`,
      ours: cpuSecondsWith,
      peer: "with none",
      theirs: cpuSecondsWithout,
      target: "",
    },
  ];
}

function figuresAt(result: ContestantResult | undefined, atOnce: number): Figures | undefined {
  return result?.figures.find((figures) => figures.atOnce === atOnce);
}

/** Those that were measured under a load, the best first. */
function rank(
  peers: readonly ContestantResult[],
  atOnce: number,
  compare: (one: Figures, other: Figures) => number,
): readonly { readonly name: string; readonly figures: Figures }[] {
  return peers
    .flatMap((peer) => {
      const figures = figuresAt(peer, atOnce);
      return figures === undefined ? [] : [{ name: peer.name, figures }];
    })
    .sort((one, other) => compare(one.figures, other.figures));
}
