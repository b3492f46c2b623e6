import { formatFigure, median, printReport, textTable } from "./report.ts";
import { cadre } from "./runs/cadre.ts";
import { compare, withStarted } from "./runs/compare.ts";
import type { Contestant } from "./runs/contestant.ts";
import { dbos } from "./runs/dbos.ts";
import { writeDocs } from "./runs/docs.ts";
import { measureFlat } from "./runs/flat.ts";
import { describeMachine } from "./runs/machine.ts";
import { type Options, type Part, parseOptions, parts, usage } from "./runs/options.ts";
import { installPeers } from "./runs/peer-packages.ts";
import { restate } from "./runs/restate.ts";
import { comparisonsOf, loadTable, type Results, systemsOf } from "./runs/results.ts";
import { keepDataIn } from "./runs/scratch.ts";
import { measureTimers } from "./runs/timers.ts";

// Durable runs of trivial steps, on one machine, one system after the other:
// Cadre as it comes, Restate and DBOS; then what else Cadre promises of runs.

const commitSamples = 200;
/** Runs at once where only one load is measured, and in a warm-up. */
const together = 50;

const measurements: Readonly<Record<Part, () => Promise<Partial<Results>>>> = {
  restate: async () => ({ restate: await compareWhole(restate, options.peerRounds) }),
  dbos: async () => ({ dbos: await compareWhole(dbos, options.peerRounds) }),
  ours: () =>
    withStarted(cadre(), async (started) => {
      const postgres = { version: started.probe.version, settings: await started.probe.settings() };
      const commitsMs = await started.probe.commits(commitSamples);
      say(`a commit takes ${median(commitsMs).toFixed(2)} ms, the median of ${commitSamples}`);
      return {
        postgres,
        commitsMs,
        ours: await compare(cadre(), started, comparing(options.loads, options.ownRounds)),
      };
    }),
  remote: async () => {
    const worker = await compareTogether(cadre({ topology: "dev", stepsBy: "worker" }));
    const mesh = await compareTogether(cadre({ topology: "mesh", stepsBy: "server" }));
    return { elsewhere: [worker, mesh] };
  },
  flat: async () => {
    const plan = { atOnce: together, rounds: options.peerRounds, roundMs: options.roundMs.together };
    const flat = await withStarted(cadre(), (started) => measureFlat(started, plan, options.warmUpMs));
    for (const { open, stepsPerSecond } of flat) {
      say(`beside ${open} open runs: ${formatFigure(stepsPerSecond)} steps/s`);
    }
    return { flat };
  },
  timers: async () => {
    const timers = await withStarted(cadre(), (started) => measureTimers(started, options.timers, options.idleMs));
    say(
      `${timers.timers} timers of ${timers.runs} runs: stored at ${formatFigure(timers.storedPerSecond)} runs/s, ${formatFigure(timers.memoryBytes)} bytes of memory a run`,
    );
    return { timers };
  },
};

const options = readOptions();
if (options.dataDirectory !== undefined) keepDataIn(options.dataDirectory);
const startedAt = new Date();
let results: Results = { startedAt, machine: await describeMachine() };
say(results.machine);
if (options.parts.has("restate") || options.parts.has("dbos")) await installPeers();

for (const part of parts) {
  if (!options.parts.has(part)) continue;
  try {
    results = { ...results, ...(await measurements[part]()) };
  } catch (error) {
    // What the others showed is told all the same.
    process.exitCode = 1;
    say(`${part} failed: ${error instanceof Error ? error.message : String(error)}`);
  }
}

if (systemsOf(results).length > 0) say(`\n${textTable(loadTable(results))}\n`);
say(`took ${Math.round((Date.now() - startedAt.getTime()) / 1_000)} s`);
if (options.isWhole && process.exitCode === undefined) say(`written: ${(await writeDocs(results)).join(", ")}`);
const comparisons = comparisonsOf(results);
if (comparisons.length > 0) printReport(comparisons);

function compareWhole(contestant: Contestant, rounds: number) {
  return withStarted(contestant, (started) => compare(contestant, started, comparing(options.loads, rounds)));
}

function compareTogether(contestant: Contestant) {
  return withStarted(contestant, (started) => compare(contestant, started, comparing([together], options.peerRounds)));
}

function comparing(loads: readonly number[], rounds: number) {
  const plans = loads.map((atOnce) => {
    const roundMs = atOnce === 1 ? options.roundMs.alone : options.roundMs.together;
    return { atOnce, rounds, roundMs };
  });
  return { plans, warmUp: { atOnce: together, forMs: options.warmUpMs } };
}

function readOptions(): Options {
  try {
    return parseOptions(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n\n${usage}`);
    process.exit(2);
  }
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
