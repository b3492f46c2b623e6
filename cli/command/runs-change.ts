import {
  type BatchProgress,
  type Cadre,
  type Checkpoint,
  jsonOf,
  type RunFilterOptions,
  runStateName,
} from "@cadre/sdk";
import { confirm, isCancel } from "@clack/prompts";
import type { Command } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { readJsonArgument } from "../json-argument.ts";
import { printJson, printLine, printNotice, printTable } from "../output.ts";
import { parseLabels, type SelectionFlags, toSelection, withSelection } from "../run-selection.ts";
import { showTime } from "../time.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };

interface BatchFlags extends Flags, SelectionFlags {
  readonly all?: boolean;
  readonly dryRun?: boolean;
  readonly yes?: boolean;
  readonly compensate?: boolean;
}

type Action = "cancel" | "resume" | "delete";

/** Adds what changes runs. */
export function registerRunChanges(runs: Command): void {
  withBatch(runs.command("cancel"), "Cancels a run and its children, or with --all the runs that the flags choose.")
    .option("--reason <text>", "why, for people; of one run")
    .option("--compensate", "undo the steps that had succeeded")
    .action(async (runId: string | undefined, flags: BatchFlags & { readonly reason?: string }) => {
      await oneOrAll("cancel", runId, flags, async (cadre, id) => {
        const { reason = "", compensate = false } = flags;
        return { run: await cadre.runs.cancel(id, { reason, compensate }), done: "is being cancelled" };
      });
    });

  withBatch(
    runs.command("resume"),
    "Goes on with a parked run, in your own name, or with --all the runs that the flags choose.",
  ).action(async (runId: string | undefined, flags: BatchFlags) => {
    await oneOrAll("resume", runId, flags, async (cadre, id) => {
      return { run: await cadre.runs.resume(id), done: "goes on" };
    });
  });

  withBatch(
    runs.command("delete"),
    "Deletes a run that ended, with its children, or with --all the runs that the flags choose.",
  ).action(async (runId: string | undefined, flags: BatchFlags) => {
    await oneOrAll("delete", runId, flags, async (cadre, id) => {
      await cadre.runs.delete(id);
      return { run: undefined, done: "is deleted" };
    });
  });

  withConnection(runs.command("signal"))
    .description("Sends a message to a run, which keeps it until a step waits for it.")
    .argument("<run>", "run_…")
    .argument("<name>", "the message's name")
    .argument("[payload]", "what it says: JSON, @file, or - for standard input; null unless said")
    .option("--json", "print JSON")
    .action(async (runId: string, name: string, payload: string | undefined, flags: Flags) => {
      const value = payload === undefined ? null : await readJsonArgument("the payload", payload);
      const seq = await (await connect(flags)).runs.signal(runId, name, value);
      if (flags.json === true) return printJson({ seq: `${seq}` });
      printLine(`${name} is stored as entry ${seq}`);
    });

  for (const [verb, approved] of [
    ["approve", true],
    ["refuse", false],
  ] as const) {
    withConnection(runs.command(verb))
      .description(`${approved ? "Approves" : "Refuses"} a step that waits for a person.`)
      .argument("<run>", "run_…")
      .argument("<step>", "the step's name")
      .option("--reason <text>", "why, for people")
      .option("--json", "print JSON")
      .action(async (runId: string, step: string, flags: Flags & { readonly reason?: string }) => {
        const { runs: client } = await connect(flags);
        const options = flags.reason === undefined ? {} : { reason: flags.reason };
        const decided = await client[verb](runId, step, options);
        if (flags.json === true) return printJson(jsonOf(decided));
        printLine(`${step} is ${approved ? "approved" : "refused"}`);
      });
  }

  withConnection(runs.command("checkpoints"))
    .description("Lists the places from which a run can be forked, oldest first.")
    .argument("<run>", "run_…")
    .option("--json", "print JSON")
    .action(async (runId: string, flags: Flags) => {
      const rows: Checkpoint[] = [];
      for await (const checkpoint of (await connect(flags)).runs.checkpoints(runId, { pageSize: 200 })) {
        rows.push(checkpoint);
      }
      if (flags.json === true) return printJson({ checkpoints: rows.map(jsonOf) });
      printTable(
        rows,
        [
          { title: "checkpoint", cell: ({ number }) => `${number}` },
          { title: "behind", cell: ({ step }) => step },
          { title: "entry", cell: ({ seq }) => `${seq}` },
          { title: "at", cell: ({ at }) => showTime(at) },
          { title: "version", cell: ({ version }) => version },
        ],
        "No step has ended yet; 0 is the start.",
      );
    });

  withConnection(runs.command("fork"))
    .description("Starts a new run from a checkpoint of another one; what had succeeded there is not done again.")
    .argument("<run>", "run_…")
    .option("--checkpoint <number>", "from where; 0 is the start", "0")
    .option("--input <json>", "what the new run is given instead: JSON, @file, or - for standard input")
    .option("--label <label...>", "marks of the new run instead, as key=value")
    .option("--json", "print JSON")
    .action(
      async (
        runId: string,
        flags: Flags & { readonly checkpoint: string; readonly input?: string; readonly label?: readonly string[] },
      ) => {
        const { checkpoint, input, label } = flags;
        if (!/^\d{1,9}$/.test(checkpoint)) {
          throw new CliError(
            exitCode.usage,
            "--checkpoint must be a number",
            `List them with \`cadre runs checkpoints ${runId}\`.`,
          );
        }
        const fork = await (await connect(flags)).runs.fork(runId, {
          checkpoint: Number(checkpoint),
          ...(input === undefined ? {} : { input: await readJsonArgument("--input", input) }),
          ...(label === undefined ? {} : { labels: parseLabels(label) }),
        });
        if (flags.json === true) return printJson(jsonOf(fork.run));
        printLine(`${fork.runId} is ${runStateName(fork.run.state)}`);
      },
    );
}

function withBatch(command: Command, description: string): Command {
  return withConnection(withSelection(command))
    .description(description)
    .argument("[run]", "run_…")
    .option("--all", "all runs that the flags choose")
    .option("--dry-run", "with --all: only say which ones it would be")
    .option("--yes", "with --all: do not ask")
    .option("--json", "print JSON");
}

interface Done {
  readonly run: Parameters<typeof jsonOf>[0] | undefined;
  readonly done: string;
}

async function oneOrAll(
  action: Action,
  runId: string | undefined,
  flags: BatchFlags,
  one: (cadre: Cadre, runId: string) => Promise<Done>,
): Promise<void> {
  if ((runId === undefined) === (flags.all !== true)) {
    throw new CliError(exitCode.usage, `say which run, or --all with the flags that choose runs`);
  }
  const cadre = await connect(flags);
  if (runId === undefined) return await all(cadre, action, flags);
  const { run, done } = await one(cadre, runId);
  if (flags.json === true) return printJson(run === undefined ? {} : jsonOf(run));
  printLine(`${runId} ${done}`);
}

async function all(cadre: Cadre, action: Action, flags: BatchFlags): Promise<void> {
  const filter = toSelection(flags);
  const stopping = new AbortController();
  const options = { compensate: flags.compensate === true, signal: stopping.signal };
  if (flags.dryRun === true) {
    let total = 0;
    for await (const progress of cadre.runs.batch(action, filter, { ...options, dryRun: true })) {
      total = progress.total;
      if (progress.runId !== "") printLine(flags.json === true ? JSON.stringify(toJson(progress)) : progress.runId);
    }
    if (flags.json !== true) printNotice(`It would ${action} ${count(total)}.`);
    return;
  }
  if (flags.yes !== true && !(await isMeant(cadre, action, filter))) return printNotice("Nothing was done.");
  process.once("SIGINT", () => stopping.abort());
  const isLive = process.stderr.isTTY === true && flags.json !== true;
  let last: BatchProgress | undefined;
  try {
    for await (const progress of cadre.runs.batch(action, filter, options)) {
      last = progress;
      if (flags.json === true) printJson(toJson(progress));
      else if (progress.error !== undefined) {
        printNotice(`${isLive ? "\r" : ""}${progress.runId}: ${progress.error.message}`);
      }
      if (isLive) process.stderr.write(`\r${progress.done} of ${progress.total} `);
    }
  } catch (thrown) {
    if (!stopping.signal.aborted) throw thrown;
    throw new CliError(
      exitCode.failed,
      `stopped behind ${last?.done ?? 0} of ${last?.total ?? 0}`,
      "The same command again goes on with the rest.",
    );
  } finally {
    if (isLive) process.stderr.write("\n");
  }
  const { done = 0, failed = 0 } = last ?? {};
  if (flags.json !== true) printLine(`${pastOf[action]} ${count(done - failed)}`);
  if (failed > 0) throw new CliError(exitCode.failed, `${count(failed)} could not be dealt with`);
}

const pastOf = { cancel: "cancelled", resume: "resumed", delete: "deleted" } as const;

async function isMeant(cadre: Cadre, action: Action, filter: RunFilterOptions): Promise<boolean> {
  if (process.stdin.isTTY !== true || process.stdout.isTTY !== true) {
    throw new CliError(
      exitCode.usage,
      `nobody can be asked here whether to ${action} them all`,
      "Say --yes, or --dry-run.",
    );
  }
  let total = 0;
  for await (const progress of cadre.runs.batch(action, filter, { dryRun: true })) {
    total = progress.total;
    break;
  }
  if (total === 0) return false;
  const answer = await confirm({ message: `${action} ${count(total)}?`, initialValue: false });
  return !isCancel(answer) && answer;
}

function toJson({ runId, error, done, failed, total }: BatchProgress) {
  const failure = error === undefined ? null : { reason: error.reason, message: error.message };
  return { run_id: runId, error: failure, done, failed, total };
}

function count(runs: number): string {
  return runs === 1 ? "1 run" : `${runs} runs`;
}
