import { CatchUp, jsonOf, Overlap, reasonName, type Schedule } from "@cadre/sdk";
import { type Command, Option } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { parseDurationMs } from "../duration.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { readGraph } from "../graph/read-graph.ts";
import { readJsonArgument } from "../json-argument.ts";
import { printFields, printJson, printLine, printTable } from "../output.ts";
import { parseLabels } from "../run-selection.ts";
import { showTime } from "../time.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };

interface PutFlags extends Flags {
  readonly cron: string;
  readonly timeZone?: string;
  readonly file?: string;
  readonly agent?: string;
  readonly input?: string;
  readonly label?: readonly string[];
  readonly overlap?: "skip" | "queue" | "allow" | "cancel";
  readonly catchUp?: "none" | "last" | "all";
  readonly catchUpWindow?: string;
  readonly paused?: boolean;
}

/** Adds `cadre schedules`. */
export function registerSchedules(program: Command): void {
  const schedules = program.command("schedules").summary("start runs by the clock");

  withConnection(schedules.command("list", { isDefault: true }))
    .description("Lists the org's schedules, by name.")
    .option("--json", "print JSON")
    .action(async (flags: Flags) => {
      const rows: Schedule[] = [];
      for await (const schedule of (await connect(flags)).schedules.list({ pageSize: 200 })) rows.push(schedule);
      if (flags.json === true) return printJson({ schedules: rows.map(jsonOf) });
      printTable(
        rows,
        [
          { title: "schedule", cell: ({ scheduleId }) => scheduleId },
          { title: "name", cell: ({ definition }) => definition?.name ?? "" },
          { title: "cron", cell: ({ definition }) => definition?.cron ?? "" },
          { title: "zone", cell: ({ definition }) => definition?.timeZone || "UTC" },
          { title: "next", cell: (schedule) => showNext(schedule) },
          { title: "last", cell: ({ lastTime }) => showTime(lastTime) },
          { title: "trouble", cell: ({ lastError }) => lastError?.message ?? "" },
        ],
        "The org has no schedules.",
      );
    });

  withConnection(schedules.command("get"))
    .alias("show")
    .description("Shows a schedule.")
    .argument("<schedule>", "sch_…, or its name")
    .option("--json", "print JSON")
    .action(async (given: string, flags: Flags) => {
      const schedule = await find(flags, given);
      if (flags.json === true) return printJson(jsonOf(schedule));
      const { definition, lastError } = schedule;
      printFields([
        ["id", schedule.scheduleId],
        ["name", definition?.name ?? ""],
        ["cron", `${definition?.cron ?? ""} in ${definition?.timeZone || "UTC"}`],
        ["runs", showDefinition(schedule)],
        ["overlap", Overlap[definition?.overlap || Overlap.SKIP].toLowerCase()],
        ["catch up", CatchUp[definition?.catchUp || CatchUp.LAST].toLowerCase()],
        ["next", definition?.paused === true ? "paused" : schedule.nextTimes.map((at) => showTime(at)).join("\n")],
        ["last", `${showTime(schedule.lastTime)}${schedule.lastRunId === "" ? "" : `  ${schedule.lastRunId}`}`],
        ["left out", `${schedule.skipped}`],
        ["trouble", lastError === undefined ? "none" : `${reasonName(lastError.reason)}: ${lastError.message}`],
      ]);
    });

  withConnection(schedules.command("put"))
    .description("Makes a schedule, or changes the one of that name. Its runs start in your own name.")
    .argument("<name>", "unique in the org")
    .requiredOption("--cron <expression>", "minute, hour, day, month, day of the week; for example '0 6 * * mon-fri'")
    .option("--time-zone <zone>", "for example Europe/Berlin; UTC unless said")
    .option("-f, --file <path>", "the graph to run, as YAML or JSON; - for standard input")
    .option("--agent <name>", "instead: the graph of this agent, as it is when a run starts")
    .option("--input <json>", "what each run is given: JSON, @file, or - for standard input")
    .option("--label <label...>", "a mark of each run, as key=value")
    .addOption(
      new Option("--overlap <what>", "when a run is due and an earlier one is open; skip unless said").choices([
        "skip",
        "queue",
        "allow",
        "cancel",
      ]),
    )
    .addOption(
      new Option("--catch-up <what>", "with times that passed while no server ran; last unless said").choices([
        "none",
        "last",
        "all",
      ]),
    )
    .option("--catch-up-window <duration>", "how far back all goes; 1h unless said")
    .option("--paused", "start nothing for now")
    .option("--json", "print JSON")
    .action(async (name: string, flags: PutFlags) => {
      const { cron, timeZone, file, agent, input, label, overlap, catchUp, catchUpWindow, paused } = flags;
      if ((file === undefined) === (agent === undefined)) {
        throw new CliError(exitCode.usage, "say what to run: a graph with -f, or an agent with --agent");
      }
      const definition = file === undefined ? { agent: agent ?? "" } : { graph: await readGraph(file) };
      const schedule = await (await connect(flags)).schedules.put({
        name,
        cron,
        run: {
          ...definition,
          ...(input === undefined ? {} : { input: await readJsonArgument("--input", input) }),
          ...(label === undefined ? {} : { labels: parseLabels(label) }),
        },
        paused: paused === true,
        ...(timeZone === undefined ? {} : { timeZone }),
        ...(overlap === undefined ? {} : { overlap }),
        ...(catchUp === undefined ? {} : { catchUp }),
        ...(catchUpWindow === undefined ? {} : { catchUpWindowMs: parseDurationMs(catchUpWindow) }),
      });
      if (flags.json === true) return printJson(jsonOf(schedule));
      printLine(`${name} is ${schedule.scheduleId}; next: ${showNext(schedule)}`);
    });

  withConnection(schedules.command("delete"))
    .description("Deletes a schedule. Runs that it started go on.")
    .argument("<schedule>", "sch_…, or its name")
    .option("--json", "print JSON")
    .action(async (given: string, flags: Flags) => {
      const { scheduleId } = await find(flags, given);
      await (await connect(flags)).schedules.delete(scheduleId);
      if (flags.json === true) return printJson({});
      printLine(`${given} is deleted`);
    });
}

/** Finds a schedule by its id or name. Throws CliError 1 if there is none. */
async function find(flags: Flags, given: string): Promise<Schedule> {
  const { schedules } = await connect(flags);
  if (given.startsWith("sch_")) return await schedules.get(given);
  for await (const schedule of schedules.list({ pageSize: 200 })) {
    if (schedule.definition?.name === given) return schedule;
  }
  throw new CliError(
    exitCode.failed,
    `there is no schedule ${JSON.stringify(given)}`,
    "List them with `cadre schedules list`.",
  );
}

function showNext({ definition, nextTimes }: Schedule): string {
  return definition?.paused === true ? "paused" : showTime(nextTimes[0]);
}

function showDefinition({ definition }: Schedule): string {
  const run = definition?.run?.definition;
  if (run?.case === "agent") return `the graph of the agent ${run.value}`;
  return run?.case === "graph" ? `the graph ${run.value.name}, ${run.value.steps.length} steps` : "";
}
