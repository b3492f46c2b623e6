import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { comparisonTable, formatFigure, markdownTable, median } from "../report.ts";
import { drawBarChart } from "./bar-chart.ts";
import type { Figures } from "./measure.ts";
import { comparisonsOf, loadTable, type Results, systemsOf } from "./results.ts";

const page = "docs/benchmarks.md";
/** Between them stands what a run of the benchmark found; the rest of the page is written by hand. */
const marks = { begin: "<!-- bench:runs begin -->", end: "<!-- bench:runs end -->" };

/** Writes what was found into the docs. Returns the files that were written. */
export async function writeDocs(results: Results): Promise<readonly string[]> {
  const written = new Map<string, string>([
    [
      "docs/runs-steps.svg",
      chart(results, "throughput, by runs at once", "steps a second", ({ stepsPerSecond }) => stepsPerSecond),
    ],
    [
      "docs/runs-cpu.svg",
      chart(results, "cost, by runs at once", "seconds of CPU for 1,000 steps", (found) => found.cpuSeconds),
    ],
    [page, replaceBetween(await readFile(pathOf(page), "utf8"), section(results))],
  ]);
  for (const [file, content] of written) await writeFile(pathOf(file), content);
  return [...written.keys()];
}

function pathOf(file: string): string {
  return fileURLToPath(new URL(`../../${file}`, import.meta.url));
}

function replaceBetween(text: string, section: string): string {
  const begin = text.indexOf(marks.begin);
  const end = text.indexOf(marks.end);
  if (begin < 0 || end < begin) throw new Error(`${page} has no ${marks.begin} … ${marks.end}`);
  return `${text.slice(0, begin)}${marks.begin}\n\n${section}\n\n${text.slice(end)}`;
}

function chart(results: Results, title: string, unit: string, figure: (figures: Figures) => number): string {
  const systems = systemsOf(results);
  const loads = systems[0]?.figures.map(({ atOnce }) => atOnce) ?? [];
  return drawBarChart({
    title: `Durable runs: ${title}`,
    unit,
    series: systems.map(({ name }) => name),
    groups: loads.map((atOnce) => ({
      label: atOnce === 1 ? "1 run alone" : `${atOnce} at once`,
      values: systems.map(({ figures }) => {
        const found = figures.find((one) => one.atOnce === atOnce);
        return found === undefined ? Number.NaN : figure(found);
      }),
    })),
  });
}

function section(results: Results): string {
  const { machine, startedAt, commitsMs = [], postgres, flat = [], timers } = results;
  const paragraphs = [
    `Measured on ${startedAt.toISOString().slice(0, 10)}: ${machine}. A commit of one row took ${median(commitsMs).toFixed(2)} ms there (median of ${commitsMs.length}; PostgreSQL ${postgres?.version}, ${postgres?.settings.join(", ")}).`,
    markdownTable(comparisonTable(comparisonsOf(results))),
    "![Steps a second](runs-steps.svg)",
    "![Seconds of CPU for 1,000 steps](runs-cpu.svg)",
    markdownTable(loadTable(results)),
    ...systemsOf(results).map(
      ({ name, settings }) => `**${name}**\n\n${settings.map((line) => `- ${line}`).join("\n")}`,
    ),
  ];
  if (flat.length > 0) {
    const rows = flat.map(({ open, stepsPerSecond }) => [open.toLocaleString("en-US"), formatFigure(stepsPerSecond)]);
    paragraphs.push(markdownTable([["open runs that wait", "steps/s, 50 at once"], ...rows]));
  }
  if (timers !== undefined) {
    paragraphs.push(
      `${timers.timers.toLocaleString("en-US")} timers, for which ${timers.runs.toLocaleString("en-US")} runs wait: stored at ${formatFigure(timers.storedPerSecond)} runs a second, ${formatFigure(timers.memoryBytes)} bytes of memory a run; the idle server, PostgreSQL included, took ${formatFigure(timers.cpuSecondsWith)} s of CPU in ${timers.idleSeconds} s, against ${formatFigure(timers.cpuSecondsWithout)} s with none.`,
    );
  }
  return paragraphs.join("\n\n");
}
