import { jsonOf } from "@cadre/sdk";
import type { Command } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printJson, printLine, printTable } from "../output.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };

/** Adds `cadre limits`. */
export function registerLimits(program: Command): void {
  const limits = program.command("limits").summary("list and set the org's limits");
  withConnection(limits.command("list", { isDefault: true }))
    .description("Lists the limits of the org.")
    .option("--json", "print JSON")
    .action(async (flags: Flags) => {
      const rows = await (await connect(flags)).limits.list();
      if (flags.json === true) return printJson({ limits: rows.map(jsonOf) });
      printTable(
        rows,
        [
          { title: "name", cell: ({ name }) => name },
          { title: "value", cell: ({ value }) => `${value}` },
          { title: "default", cell: ({ defaultValue }) => `${defaultValue}` },
          { title: "at most", cell: ({ maxValue }) => `${maxValue}` },
          { title: "what", cell: ({ description }) => description },
        ],
        "There are no limits.",
      );
    });
  withConnection(limits.command("set"))
    .description("Sets a limit of the org. Wants the role admin.")
    .argument("<name>", "the limit, as `cadre limits list` names it")
    .argument("<value>", "a whole number")
    .option("--json", "print JSON")
    .addHelpText("after", "\nExample:\n  $ cadre limits set sessions 1000")
    .action(async (name: string, value: string, flags: Flags) => {
      if (!/^\d{1,19}$/.test(value)) {
        throw new CliError(exitCode.usage, `${JSON.stringify(value)} is no whole number`);
      }
      const limit = await (await connect(flags)).limits.set(name, BigInt(value));
      if (flags.json === true) return printJson(jsonOf(limit));
      printLine(`${limit.name} is ${limit.value}`);
    });
}
