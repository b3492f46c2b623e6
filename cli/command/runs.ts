import {
  jsonOf,
  pictureOf,
  type Run,
  type RunStep,
  reasonName,
  runStateName,
  stepStateName,
  toMermaid,
  valueOf,
} from "@cadre/sdk";
import { type Command, Option } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printFields, printJson, printLine, printTable, shorten } from "../output.ts";
import { type SelectionFlags, toSelection, withSelection } from "../run-selection.ts";
import { showReceipt, showValue, showWait } from "../run-view.ts";
import { showDuration, showDurationMs, showTime } from "../time.ts";
import { registerRunChanges } from "./runs-change.ts";
import { registerRunHistories } from "./runs-history.ts";
import { registerRunStart } from "./runs-start.ts";
import { registerRunTrace } from "./runs-trace.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };

/** Adds `cadre runs`. */
export function registerRuns(program: Command): void {
  const runs = program.command("runs").summary("start, follow, list, change and verify durable runs");

  withConnection(withSelection(runs.command("list", { isDefault: true })))
    .description("Lists runs of the org, newest first.")
    .option("--limit <count>", "how many at most", "50")
    .option("--json", "print JSON")
    .action(async (flags: Flags & SelectionFlags & { readonly limit: string }) => {
      const limit = parseCount("--limit", flags.limit);
      const rows: Run[] = [];
      const listing = (await connect(flags)).runs.list({ ...toSelection(flags), pageSize: Math.min(limit, 200) });
      for await (const run of listing) {
        rows.push(run);
        if (rows.length >= limit) break;
      }
      if (flags.json === true) return printJson({ runs: rows.map(jsonOf) });
      printTable(
        rows,
        [
          { title: "run", cell: ({ runId }) => runId },
          { title: "name", cell: ({ name }) => shorten(name, 32) },
          { title: "state", cell: ({ state }) => runStateName(state) },
          { title: "labels", cell: ({ labels }) => shorten(showLabels(labels), 40) },
          { title: "stored", cell: ({ createdAt }) => showTime(createdAt) },
          { title: "ended", cell: ({ endedAt }) => showTime(endedAt, "") },
          { title: "why", cell: ({ error, parked }) => shorten(error?.message ?? parked?.message ?? "", 60) },
        ],
        "There are no such runs.",
      );
    });

  withConnection(runs.command("get"))
    .alias("show")
    .description("Shows a run and its steps.")
    .argument("<run>", "run_…")
    .option("--json", "print JSON")
    .action(async (runId: string, flags: Flags) => {
      const { run } = await (await connect(flags)).runs.get(runId);
      if (flags.json === true) return printJson(jsonOf(run));
      printRun(run);
    });

  withConnection(runs.command("graph"))
    .description("Draws a run as a graph: its steps, their states, and what each waits for.")
    .argument("<run>", "run_…")
    .addOption(new Option("--format <format>", "how").choices(["mermaid", "json"]).default("mermaid"))
    .option("--json", "as --format json")
    .action(async (runId: string, flags: Flags & { readonly format: "mermaid" | "json" }) => {
      const picture = pictureOf((await (await connect(flags)).runs.get(runId)).run);
      if (flags.json === true || flags.format === "json") return printLine(JSON.stringify(picture));
      printLine(toMermaid(picture));
    });

  registerRunStart(runs);
  registerRunChanges(runs);
  registerRunHistories(runs);
  registerRunTrace(runs);
}

function printRun(run: Run): void {
  const { error, parked, pins, sessionId, parentRunId, forkedFromRunId, scheduleId } = run;
  const fields: (readonly [string, string])[] = [
    ["id", run.runId],
    ["name", run.name],
    ["state", runStateName(run.state)],
  ];
  const add = (name: string, value: string): void => {
    if (value !== "") fields.push([name, value]);
  };
  add("input", run.input === undefined ? "" : showValue(valueOf(run.input)));
  add("output", run.output === undefined ? "" : showValue(valueOf(run.output)));
  if (error !== undefined) add("failed", showFailure(error));
  if (parked !== undefined) add("parked", `${reasonName(parked.reason)}: ${parked.message}`);
  if (parked !== undefined) add("", parked.diff.join("\n"));
  add("labels", showLabels(run.labels));
  add("session", sessionId);
  add("parent", parentRunId);
  add("fork of", forkedFromRunId === "" ? "" : `${forkedFromRunId} at checkpoint ${run.forkedFromCheckpoint}`);
  add("schedule", scheduleId);
  add("agent", pins?.agent ?? "");
  add("definition", pins?.definitionDigest ?? "");
  add("tools", pins?.tools.map(({ tool }) => tool).join(" ") ?? "");
  add("models", pins?.models.join(" ") ?? "");
  if (run.budget !== undefined) {
    add("budget", `${run.budget.maxSteps} steps, ${showDuration(run.budget.maxDuration)}`);
  }
  add("ledger", `${run.lastSeq} entries, ${run.ledgerHead}`);
  add("stored", showTime(run.createdAt));
  add("ended", showTime(run.endedAt, ""));
  printFields(fields);
  printLine();
  printTable(
    run.steps.flatMap(withParts),
    [
      { title: "step", cell: ({ label }) => label },
      { title: "state", cell: ({ step }) => stepStateName(step.state) },
      { title: "attempt", cell: ({ step }) => (step.attempt === 0 ? "" : `${step.attempt}`) },
      { title: "time", cell: ({ step }) => timeOf(step) },
      { title: "what", cell: ({ step }) => shorten(whatOf(step), 100) },
    ],
    "Nothing of it was begun yet.",
  );
}

interface LabelledStep {
  readonly label: string;
  readonly step: RunStep;
}

/** A step, its elements, and what undid it. */
function withParts(step: RunStep): LabelledStep[] {
  const items = step.items.map((item, index) => ({ label: `  ${step.name}[${index}]`, step: item }));
  const undone = step.compensation === undefined ? [] : [{ label: `  undo ${step.name}`, step: step.compensation }];
  return [{ label: step.name, step }, ...items, ...undone];
}

function whatOf({ output, error, wait, receipt }: RunStep): string {
  if (wait !== undefined) return showWait(wait);
  if (output !== undefined) return showValue(valueOf(output));
  if (error !== undefined) return showFailure(error);
  return receipt === 0 ? "" : showReceipt(receipt);
}

function showFailure({ reason, message, step }: NonNullable<Run["error"]>): string {
  return `${step === "" ? "" : `${step}: `}${reasonName(reason)}: ${message}`;
}

function timeOf({ startedAt, endedAt }: RunStep): string {
  if (startedAt === undefined || endedAt === undefined) return "";
  const ms = Number(endedAt.seconds - startedAt.seconds) * 1_000 + (endedAt.nanos - startedAt.nanos) / 1e6;
  // That a step began is on record only if it took longer than a moment.
  return ms === 0 ? "" : showDurationMs(ms);
}

function showLabels(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");
}

function parseCount(flag: string, text: string): number {
  if (/^[1-9]\d{0,5}$/.test(text)) return Number(text);
  throw new CliError(exitCode.usage, `${flag} must be a whole number from 1`);
}
