import { type RunFilterOptions, type RunStateName, runStateNames } from "@cadre/sdk";
import { type Command, Option } from "commander";
import { parseDurationMs } from "./duration.ts";
import { exitCode } from "./exit-code.ts";
import { CliError } from "./failure.ts";

/** The flags by which runs are chosen. */
export interface SelectionFlags {
  readonly state?: readonly RunStateName[];
  readonly name?: string;
  readonly label?: readonly string[];
  readonly session?: string;
  readonly schedule?: string;
  readonly parent?: string;
  readonly since?: string;
  readonly before?: string;
}

/** Adds the flags to a command. */
export function withSelection(command: Command): Command {
  return command
    .addOption(new Option("--state <states...>", "in one of these states").choices(runStateNames))
    .option("--name <name>", "of the graph or agent of this name")
    .option("--label <label...>", "with this label, as key=value")
    .option("--session <session>", "turns of this session")
    .option("--schedule <schedule>", "started by this schedule")
    .option("--parent <run>", "children of this run")
    .option("--since <time>", "stored since then: 2026-02-01, 2026-02-01T06:00:00Z, or how long ago: 2h")
    .option("--before <time>", "stored before then, likewise");
}

/** What the flags mean. Throws CliError 2. */
export function toSelection(flags: SelectionFlags): RunFilterOptions {
  const { state, name, label, session, schedule, parent, since, before } = flags;
  return {
    ...(state === undefined ? {} : { states: state }),
    ...(name === undefined ? {} : { name }),
    ...(label === undefined ? {} : { labels: parseLabels(label) }),
    ...(session === undefined ? {} : { sessionId: session }),
    ...(schedule === undefined ? {} : { scheduleId: schedule }),
    ...(parent === undefined ? {} : { parentRunId: parent }),
    ...(since === undefined ? {} : { createdAfter: parseTime("--since", since) }),
    ...(before === undefined ? {} : { createdBefore: parseTime("--before", before) }),
  };
}

/** Parses `key=value` texts. Throws CliError 2. */
export function parseLabels(labels: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    labels.map((label) => {
      const [, key, value] = /^([^=]+)=(.*)$/s.exec(label) ?? [];
      if (key === undefined || value === undefined) {
        throw new CliError(exitCode.usage, `${JSON.stringify(label)} is no label`, "For example: --label team=billing");
      }
      return [key, value];
    }),
  );
}

function parseTime(flag: string, text: string): Date {
  if (/^\d+(\.\d+)?(ms|s|m|h|d)$/.test(text)) return new Date(Date.now() - parseDurationMs(text));
  const time = new Date(text);
  if (/^\d{4}-\d\d-\d\d/.test(text) && !Number.isNaN(time.getTime())) return time;
  throw new CliError(
    exitCode.usage,
    `${flag}: ${JSON.stringify(text)} is no time`,
    "For example: 2026-02-01, 2026-02-01T06:00:00Z or 2h.",
  );
}
