import type { Command } from "commander";
import { type ConnectionFlags, withConnection } from "../connection.ts";

/** Adds `cadre doctor`. */
export function registerDoctor(program: Command): void {
  withConnection(program.command("doctor"))
    .summary("look at everything at once, and say what to do")
    .description(
      "Looks at versions, configuration, server, key, services, data directory, ports and disk, changes nothing, and says what to do next.",
    )
    .option("--json", "print JSON")
    .action(async (flags: ConnectionFlags & { readonly json?: boolean }) => {
      const { runDoctor } = await import("../doctor/run-doctor.ts");
      process.exitCode = await runDoctor(flags);
    });
}
