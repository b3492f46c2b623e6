import type { Command } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { printJson, printLine } from "../output.ts";

type GenerateFlags = ConnectionFlags & { readonly out: string; readonly name?: string; readonly json?: boolean };

/** Adds `cadre sdk`. */
export function registerSdk(program: Command): void {
  const sdk = program.command("sdk").summary("make typed client packages of registered contracts");

  withConnection(sdk.command("generate"))
    .description("Makes an npm package of registered contracts: typed messages, and a client of each service.")
    .argument("<subjects...>", "subjects, or packages: shop.v1 is every subject of shop/v1/")
    .requiredOption("--out <directory>", "where to; new, empty, or generated before")
    .option("--name <name>", "the package's name; made of the first subject unless said")
    .option("--json", "print JSON")
    .addHelpText("after", "\nExample:\n  $ cadre sdk generate shop/v1/order.proto --out order-sdk")
    .action(async (names: readonly string[], flags: GenerateFlags) => {
      const { generateSdk } = await import("../sdk/generate-sdk.ts");
      const { name, directory, contracts } = await generateSdk(await connect(flags), names, flags.out, flags.name);
      if (flags.json === true) return printJson({ name, directory, contracts: [...contracts] });
      for (const { subject, version } of contracts) printLine(`${subject}: version ${version}`);
      printLine(`${name} is in ${directory}`);
    });
}
