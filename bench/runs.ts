import { formatFigure, median, printReport, textTable } from "./report.ts";
import { cadre } from "./runs/cadre.ts";
import { type Contestant, type StartedContestant, stepsOfRun } from "./runs/contestant.ts";
import { dbos } from "./runs/dbos.ts";
import { writeDocs } from "./runs/docs.ts";
import { measureFlat } from "./runs/flat.ts";
import { startLoad } from "./runs/load.ts";
import { describeMachine } from "./runs/machine.ts";
import { type Figures, measure, warmUp } from "./runs/measure.ts";
import { type Options, parseOptions, usage } from "./runs/options.ts";
import { installPeers } from "./runs/peer-packages.ts";
import { restate } from "./runs/restate.ts";
import { type ContestantResult, comparisonsOf, loadTable, type Results } from "./runs/results.ts";
import { keepDataIn } from "./runs/scratch.ts";
import { countSyncs } from "./runs/sync-count.ts";
import { measureTimers } from "./runs/timers.ts";

// Durable runs of trivial steps, on one machine, one system after the other:
// Cadre as it comes, Restate and DBOS; then what else Cadre promises of runs.

const commitSamples = 200;
/** Runs at once where only one load is measured. */
const together = 50;

const options = readOptions();
if (options.dataDirectory !== undefined) keepDataIn(options.dataDirectory);
const startedAt = new Date();
const machine = await describeMachine();
say(machine);
if (options.parts.has("restate") || options.parts.has("dbos")) await installPeers();

const peers: ContestantResult[] = [];
if (options.parts.has("restate")) peers.push(await compare(restate, options.loads, options.peerRounds));
if (options.parts.has("dbos")) peers.push(await compare(dbos, options.loads, options.peerRounds));
let results: Results = { machine, startedAt, peers, elsewhere: [], commitsMs: [] };
if (options.parts.has("ours")) {
  await withStarted(cadre(), async (started) => {
    const { version } = started.probe;
    const settings = await started.probe.settings();
    const commitsMs = await started.probe.commits(commitSamples);
    say(`a commit takes ${median(commitsMs).toFixed(2)} ms, the median of ${commitSamples}`);
    const ours = await compareStarted(cadre(), started, options.loads, options.ownRounds);
    results = { ...results, ours, commitsMs, postgres: `PostgreSQL ${version}, ${settings.join(", ")}` };
  });
}
if (options.parts.has("remote")) {
  const worker = await compare(cadre({ topology: "dev", stepsBy: "worker" }), [together], options.peerRounds);
  const mesh = await compare(cadre({ topology: "mesh", stepsBy: "server" }), [together], options.peerRounds);
  results = { ...results, elsewhere: [worker, mesh] };
}
if (options.parts.has("flat")) {
  const plan = { atOnce: together, rounds: 3, roundMs: options.roundMs.together * 0.75 };
  const flat = await withStarted(cadre(), (started) => measureFlat(started, plan, options.warmUpMs));
  for (const { open, stepsPerSecond } of flat) say(`beside ${open} open runs: ${formatFigure(stepsPerSecond)} steps/s`);
  results = { ...results, flat };
}
if (options.parts.has("timers")) {
  const timers = await withStarted(cadre(), (started) => measureTimers(started, options.timers, options.idleMs));
  say(
    `${timers.timers} timers: stored at ${formatFigure(timers.storedPerSecond)}/s, ${formatFigure(timers.memoryBytes)} bytes of memory each`,
  );
  results = { ...results, timers };
}

say(`\n${textTable(loadTable(results))}`);
if (options.isWhole) say(`\nwritten: ${(await writeDocs(results)).join(", ")}`);
say(`took ${Math.round((Date.now() - startedAt.getTime()) / 1_000)} s`);
printReport(comparisonsOf(results));

async function compare(contestant: Contestant, loads: readonly number[], rounds: number): Promise<ContestantResult> {
  return withStarted(contestant, (started) => compareStarted(contestant, started, loads, rounds));
}

async function compareStarted(
  { name, settings }: Contestant,
  started: StartedContestant,
  loads: readonly number[],
  rounds: number,
): Promise<ContestantResult> {
  const load = startLoad(started.request, stepsOfRun);
  try {
    await warmUp(load, together, options.warmUpMs);
    const figures: Figures[] = [];
    for (const atOnce of loads) {
      const roundMs = atOnce === 1 ? options.roundMs.alone : options.roundMs.together;
      const found = await measure(started, load, { atOnce, rounds, roundMs }, stepsOfRun);
      say(
        `${name}, ${atOnce} at once: ${formatFigure(found.stepsPerSecond)} steps/s, p50 ${formatFigure(found.p50Ms)} ms`,
      );
      figures.push(found);
    }
    return { name, settings, figures, syncsOfStep: await countSyncs(started, load, stepsOfRun) };
  } finally {
    await load.stop();
  }
}

/** Starts a contestant, and stops it whatever comes, also when this process is told to end. */
async function withStarted<Started extends StartedContestant, Result>(
  contestant: { readonly name: string; start(): Promise<Started> },
  use: (started: Started) => Promise<Result>,
): Promise<Result> {
  const started = await contestant.start();
  const onSignal = (): void => {
    void started.stop().finally(() => process.exit(130));
  };
  process.once("SIGINT", onSignal).once("SIGTERM", onSignal);
  try {
    return await use(started);
  } finally {
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
    await started.stop();
  }
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
