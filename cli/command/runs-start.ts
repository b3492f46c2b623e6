import {
  type JsonValue,
  jsonOf,
  type RunEvent,
  type RunHandle,
  RunState,
  runStateName,
  type StartRunOptions,
  valueOf,
} from "@cadre/sdk";
import { type Command, Option } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { parseDurationMs } from "../duration.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { readGraph } from "../graph/read-graph.ts";
import { readJsonArgument } from "../json-argument.ts";
import { printJson, printLine, printNotice } from "../output.ts";
import { parseLabels } from "../run-selection.ts";
import { createRunView } from "../run-view.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };

interface StartFlags extends Flags {
  readonly via: "server" | "bus";
  readonly timeout: string;
  readonly file?: string;
  readonly agent?: string;
  readonly input?: string;
  readonly label?: readonly string[];
  readonly wait?: boolean;
  readonly maxSteps?: string;
  readonly maxDuration?: string;
  readonly key?: string;
}

interface WatchFlags extends Flags {
  readonly afterSeq: string;
  readonly until: "ended" | "waiting";
}

/** Adds `cadre runs start` and `watch`. */
export function registerRunStart(runs: Command): void {
  withConnection(runs.command("start"))
    .description("Starts a run and returns as soon as it is stored; the run goes on by itself.")
    .option("-f, --file <path>", "the graph, as YAML or JSON; - for standard input")
    .option("--agent <name>", "instead: the graph of this agent")
    .option("--input <json>", "what the run is given: JSON, @file, or - for standard input")
    .option("--label <label...>", "a mark of your own, as key=value")
    .option("--wait", "show how it goes on, and print its output; Ctrl-C leaves it running")
    .option("--max-steps <count>", "how many steps it may begin; 10000 unless said")
    .option("--max-duration <duration>", "how long it may take, for example 2h; 24h unless said")
    .option("--key <key>", "idempotency key: the same again starts nothing, and answers the same")
    .addOption(
      new Option(
        "--via <door>",
        "bus: the server only signs the request, which goes through Kafka, and so does its answer",
      )
        .choices(["server", "bus"])
        .default("server"),
    )
    .option("--timeout <duration>", "with --via bus: how long --wait waits", "5m")
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      `
Example of a graph:
  name: greet
  steps:
    - name: sum
      tool: { tool: calculator, arguments: { expression: { $ref: input.expression } } }
    - name: ok
      approval: { prompt: { $ref: steps.sum.output } }
    - name: tell
      after: [{ step: ok, when: output.approved }]
      model: { prompt: { $ref: steps.sum.output } }

  $ cadre runs start -f greet.yaml --input '{"expression":"6 * 7"}' --wait

--via bus finds Kafka by CADRE_KAFKA_BROKERS and the other settings that \`cadre topics\` takes.`,
    )
    .action(async (flags: StartFlags) => {
      const cadre = await connect(flags);
      const options = await startOptions(flags);
      if (flags.via === "bus") {
        const { wait = false, json = false } = flags;
        const { runByBus } = await import("../kafka/run-by-bus.ts");
        process.exitCode = await runByBus(() => cadre.runs.signRequest(options), {
          wait,
          json,
          timeoutMs: parseDurationMs(flags.timeout),
        });
        return;
      }
      const run = await cadre.runs.start<JsonValue, JsonValue>(options);
      if (flags.wait !== true) {
        if (flags.json === true) return printJson(jsonOf(run.run));
        printLine(`${run.runId} is ${runStateName(run.run.state)}`);
        return printNotice(`Follow it with: cadre runs watch ${run.runId}`);
      }
      process.exitCode = await follow(run, { shown: flags.json === true ? "output" : "progress", untilParked: true });
    });

  withConnection(runs.command("watch"))
    .description("Follows a run until it has ended, over restarts of the server.")
    .argument("<run>", "run_…")
    .option("--after-seq <number>", "begin after this event", "0")
    .addOption(
      new Option("--until <when>", "leave when it has ended, or as soon as all that is left of it waits")
        .choices(["ended", "waiting"])
        .default("ended"),
    )
    .option("--json", "print each event as JSON on a line")
    .action(async (runId: string, flags: WatchFlags) => {
      if (!/^\d{1,19}$/.test(flags.afterSeq)) {
        throw new CliError(exitCode.usage, "--after-seq must be the number of an event");
      }
      const run = await (await connect(flags)).runs.get(runId);
      const shown = flags.json === true ? "events" : "progress";
      process.exitCode = await follow(run, {
        shown,
        afterSeq: BigInt(flags.afterSeq),
        untilWaiting: flags.until === "waiting",
      });
    });
}

async function startOptions(flags: StartFlags): Promise<StartRunOptions> {
  const { file, agent, input, label = [], maxSteps, maxDuration, key } = flags;
  if ((file === undefined) === (agent === undefined)) {
    throw new CliError(exitCode.usage, "say what to run: a graph with -f, or an agent with --agent");
  }
  if (file === "-" && input === "-") {
    throw new CliError(exitCode.usage, "standard input is the graph or the input, not both");
  }
  if (maxSteps !== undefined && !/^[1-9]\d{0,5}$/.test(maxSteps)) {
    throw new CliError(exitCode.usage, "--max-steps must be a whole number from 1");
  }
  const definition = file === undefined ? { agent: agent ?? "" } : { graph: await readGraph(file) };
  return {
    ...definition,
    ...(input === undefined ? {} : { input: await readJsonArgument("--input", input) }),
    labels: parseLabels(label),
    budget: {
      ...(maxSteps === undefined ? {} : { maxSteps: Number(maxSteps) }),
      ...(maxDuration === undefined ? {} : { maxDurationMs: parseDurationMs(maxDuration) }),
    },
    ...(key === undefined ? {} : { idempotencyKey: key }),
  };
}

/** Behind which all that is left of a run may wait. */
const changesState: ReadonlySet<RunEvent["body"]["case"]> = new Set(["stepWaiting", "approvalRequested", "stepEnded"]);

interface FollowOptions {
  /** `progress` for people, and the output at the end; `events` as lines of JSON; `output`: the run as JSON, at the end. */
  readonly shown: "progress" | "events" | "output";
  readonly afterSeq?: bigint;
  /** Whether a parked run is not waited for. */
  readonly untilParked?: boolean;
  /** Whether nothing is waited for but what goes on by itself; not for timers either. */
  readonly untilWaiting?: boolean;
}

/**
 * Follows a run to its end and returns the exit code: 1 unless it succeeded.
 * Ctrl-C leaves it running and is no failure.
 */
async function follow(run: RunHandle, options: FollowOptions): Promise<number> {
  const { shown, afterSeq = 0n, untilParked = false, untilWaiting = false } = options;
  const { runId } = run;
  const view = createRunView(process.stderr);
  const leaving = new AbortController();
  process.once("SIGINT", () => leaving.abort());
  const events = run.events({
    afterSeq,
    signal: leaving.signal,
    onBreak: ({ error }) => view.showBreak(error.message),
    // Somebody looks on and can leave at any time.
    reconnect: { maxElapsedMs: Number.POSITIVE_INFINITY },
  });
  try {
    for await (const event of events) {
      if (shown === "events") printJson(jsonOf(event));
      else if (shown === "progress") view.show(event);
      if (untilParked && event.body.case === "runParked") break;
      if (untilWaiting && changesState.has(event.body.case)) {
        const { state } = await run.refresh({ signal: leaving.signal });
        if (state === RunState.WAITING) return exitCode.done;
      }
    }
    const ended = await run.refresh({ signal: leaving.signal });
    if (shown === "output") printJson(jsonOf(ended));
    const state = runStateName(ended.state);
    if (shown === "progress" && state === "succeeded" && ended.output !== undefined) printJson(valueOf(ended.output));
    return state === "succeeded" ? exitCode.done : exitCode.failed;
  } catch (thrown) {
    if (!leaving.signal.aborted) throw thrown;
    printNotice(`${runId} goes on; follow it with: cadre runs watch ${runId}`);
    return exitCode.done;
  }
}
