import { confirm, isCancel } from "@clack/prompts";
import type { GroupPosition, Place } from "../../services/runtime/bus/group-position.ts";
import { busTopics } from "../../services/runtime/bus/topics.ts";
import { type ExitCode, exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printJson, printTable } from "../output.ts";
import { type BusFlags, busOffsetsOf } from "./bus-offsets.ts";

/** `cadre events offsets list`. */
export async function runOffsetsList(
  flags: BusFlags & { readonly group?: string; readonly topic?: string },
): Promise<ExitCode> {
  const topics = flags.topic === undefined ? busTopics.map(({ name }) => name) : [knownTopic(flags.topic)];
  print(flags, await busOffsetsOf(flags).list(topics, flags.group));
  return exitCode.done;
}

/** `cadre events offsets reset`. */
export async function runOffsetsReset(
  flags: BusFlags & { readonly group: string; readonly topic: string; readonly to: string; readonly yes?: boolean },
): Promise<ExitCode> {
  const { group, to } = flags;
  const topic = knownTopic(flags.topic);
  const position = parsePosition(to);
  if (flags.yes !== true) {
    const message = `Move ${group} in ${topic} to ${to}? Events before it are not handled, those after it again.`;
    const answer = await confirm({ message, initialValue: false });
    if (isCancel(answer) || !answer) return exitCode.failed;
  }
  const offsets = busOffsetsOf(flags);
  await offsets.reset(group, topic, position);
  print(flags, await offsets.list([topic], group));
  return exitCode.done;
}

function knownTopic(name: string): string {
  if (busTopics.some((topic) => topic.name === name)) return name;
  const names = busTopics.map((topic) => topic.name).join(", ");
  throw new CliError(exitCode.usage, `${JSON.stringify(name)} is no topic`, `There are: ${names}.`);
}

function parsePosition(to: string): Place {
  if (to === "earliest" || to === "latest") return to;
  const at = new Date(to);
  if (!Number.isNaN(at.getTime()) && /^\d{4}-\d\d-\d\dT/.test(to)) return at;
  throw new CliError(
    exitCode.usage,
    `${JSON.stringify(to)} is no place`,
    "It is earliest, latest or a time such as 2026-11-21T08:00:00Z.",
  );
}

function print(flags: BusFlags, rows: readonly GroupPosition[]): void {
  if (flags.json === true) {
    return printJson({
      offsets: rows.map(({ group, topic, partition, next, end, lag }) => ({
        group,
        topic,
        partition,
        next_offset: next === undefined ? null : String(next),
        end_offset: String(end),
        lag: String(lag),
      })),
    });
  }
  printTable(
    rows,
    [
      { title: "group", cell: ({ group }) => group },
      { title: "topic", cell: ({ topic }) => topic },
      { title: "partition", cell: ({ partition }) => String(partition) },
      { title: "next", cell: ({ next }) => (next === undefined ? "(nothing yet)" : String(next)) },
      { title: "end", cell: ({ end }) => String(end) },
      { title: "lag", cell: ({ lag }) => String(lag) },
    ],
    "No group follows these topics.",
  );
}
