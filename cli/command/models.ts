import { jsonOf, type Model } from "@cadre/sdk";
import type { Command } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { printJson, printTable } from "../output.ts";

/** Adds `cadre models`. */
export function registerModels(program: Command): void {
  const models = program.command("models").summary("list the models that agents can use");
  withConnection(models.command("list", { isDefault: true }))
    .description("Lists the models that are configured, and whether their keys are there.")
    .option("--json", "print JSON")
    .action(async (flags: ConnectionFlags & { readonly json?: boolean }) => {
      const cadre = await connect(flags);
      const rows: Model[] = [];
      for await (const model of cadre.models.list({ pageSize: 200 })) rows.push(model);
      if (flags.json === true) return printJson({ models: rows.map(jsonOf) });
      printTable(
        rows,
        [
          { title: "name", cell: ({ name }) => name },
          { title: "provider", cell: ({ provider }) => provider },
          { title: "context", cell: ({ contextTokens }) => `${contextTokens} tokens` },
          { title: "available", cell: ({ available }) => (available ? "yes" : "no: its key is missing") },
        ],
        "No model is configured.",
      );
    });
}
