import type { Command } from "commander";

/** Adds `cadre db`. */
export function registerDb(program: Command): void {
  const db = program.command("db").summary("migrate the database, say how it stands, or go back");
  const where = (command: Command): Command =>
    command
      .option("--database-url <url>", "a PostgreSQL of your own; else CADRE_DATABASE_URL, or the embedded one")
      .option("--data <directory>", "the data directory of the embedded one; else CADRE_DATA, or .cadre")
      .option("--service <names...>", "only these services; all unless said")
      .option("--json", "print JSON");

  where(db.command("status", { isDefault: true }))
    .description("Says which steps are applied, and whether the schema is as they left it. Changes nothing.")
    .action(async (flags) => {
      const { runDbStatus } = await import("../database/run-db.ts");
      process.exitCode = await runDbStatus(flags);
    });

  where(db.command("migrate"))
    .description("Applies the steps that are missing. Servers do so by themselves when they start.")
    .option("--allow-destructive", "also steps that lose data")
    .action(async (flags) => {
      const { runDbMigrate } = await import("../database/run-db.ts");
      process.exitCode = await runDbMigrate(flags);
    });

  where(db.command("down"))
    .description("Undoes steps of one service, the last one first. Loses what they hold.")
    .option("--to <step>", "the last step that stays; one step is undone unless said")
    .option("--yes", "do not ask")
    .addHelpText("after", "\nExample:\n  $ cadre db down --service tools --to 0001-initial")
    .action(async (flags) => {
      const { runDbDown } = await import("../database/run-db.ts");
      process.exitCode = await runDbDown(flags);
    });
}
