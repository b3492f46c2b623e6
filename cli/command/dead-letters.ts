import { type DeadLetter, DeadLetterState, jsonOf, reasonName } from "@cadre/sdk";
import { type Command, Option } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { printFields, printJson, printLine, printTable } from "../output.ts";
import { showTime } from "../time.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };

interface ListFlags extends Flags {
  readonly topic?: string;
  readonly group?: string;
  readonly state?: "kept" | "requeued" | "discarded";
  readonly unattributed?: boolean;
}

/** Adds `dead-letters` to `cadre events`. */
export function registerDeadLetters(events: Command): void {
  const letters = events.command("dead-letters").summary("list, show, requeue and discard dead letters");

  withConnection(letters.command("list", { isDefault: true }))
    .description("Lists the org's dead letters, newest first.")
    .option("--topic <topic>", "only those of this topic")
    .option("--group <group>", "only those of this consumer group")
    .addOption(new Option("--state <state>", "only those in this state").choices(["kept", "requeued", "discarded"]))
    .option("--unattributed", "instead: those whose org cannot be told; wants an operator")
    .option("--json", "print JSON")
    .action(async ({ topic, group, state, unattributed, ...flags }: ListFlags) => {
      const filter = {
        pageSize: 200,
        ...(topic === undefined ? {} : { topic }),
        ...(group === undefined ? {} : { group }),
        ...(state === undefined ? {} : { state }),
        unattributed: unattributed === true,
      };
      const rows = await Array.fromAsync((await connect(flags)).deadLetters.list(filter));
      if (flags.json === true) return printJson({ dead_letters: rows.map(jsonOf) });
      printTable(
        rows,
        [
          { title: "dead letter", cell: ({ deadLetterId }) => deadLetterId },
          { title: "state", cell: ({ state }) => showState(state) },
          { title: "topic", cell: ({ topic }) => topic },
          { title: "group", cell: ({ group }) => group },
          { title: "failed", cell: ({ failedAt }) => showTime(failedAt) },
          { title: "reason", cell: ({ reason }) => reasonName(reason) },
        ],
        "There are no dead letters.",
      );
    });

  withConnection(letters.command("show"))
    .alias("get")
    .description("Shows a dead letter with its event; sensitive values are left out.")
    .argument("<dead-letter>", "dlt_…")
    .option("--json", "print JSON")
    .action(async (deadLetterId: string, flags: Flags) => {
      const found = await (await connect(flags)).deadLetters.get(deadLetterId);
      if (flags.json === true) return printJson(jsonOf(found));
      const { deadLetter, key, headers, value } = found;
      printFields([
        ...(deadLetter === undefined ? [] : fieldsOf(deadLetter)),
        ["key", key],
        [
          "headers",
          Object.entries(headers)
            .map(([name, text]) => `${name}: ${text}`)
            .join("\n"),
        ],
        ["value", value === undefined ? "cannot be decoded" : JSON.stringify(value, undefined, 2)],
      ]);
    });

  withConnection(letters.command("requeue"))
    .description("Puts events back on their topics, for the consumer groups that had failed. Each is done once.")
    .argument("<dead-letters...>", "dlt_…")
    .option("--json", "print JSON")
    .action(async (ids: readonly string[], flags: Flags) => {
      const { deadLetters } = await connect(flags);
      await each(ids, flags, (id) => deadLetters.requeue(id), "is requeued");
    });

  withConnection(letters.command("discard"))
    .description("Closes dead letters for good: their events are not handled any more.")
    .argument("<dead-letters...>", "dlt_…")
    .option("--json", "print JSON")
    .action(async (ids: readonly string[], flags: Flags) => {
      const { deadLetters } = await connect(flags);
      await each(ids, flags, (id) => deadLetters.discard(id), "is discarded");
    });
}

/** One after the other; the first that fails ends it, and what was done is told. */
async function each(
  ids: readonly string[],
  flags: Flags,
  change: (id: string) => Promise<DeadLetter>,
  done: string,
): Promise<void> {
  for (const id of ids) {
    const letter = await change(id);
    if (flags.json === true) printJson(jsonOf(letter));
    else printLine(`${id} ${done}`);
  }
}

function fieldsOf(letter: DeadLetter): (readonly [name: string, value: string])[] {
  const isClosed = letter.closedAt !== undefined;
  return [
    ["id", letter.deadLetterId],
    ["state", `${showState(letter.state)}${isClosed ? ` ${showTime(letter.closedAt)} by ${letter.closedBy}` : ""}`],
    ["from", `${letter.topic}, partition ${letter.partition}, offset ${letter.offset}`],
    ["group", letter.group],
    ["failed", `${showTime(letter.failedAt)} after ${letter.attempts} attempts`],
    ["reason", `${reasonName(letter.reason)}: ${letter.message}`],
    ["event", `${letter.eventType} ${letter.eventId}`],
    ["bytes", `${letter.size}, SHA-256 ${letter.sha256}`],
  ];
}

function showState(state: DeadLetterState): string {
  return DeadLetterState[state].toLowerCase();
}
