import { type Command, Option } from "commander";
import { flagOf, serverSettings } from "./server/configuration.ts";

/** Adds `dev`, `serve` and `mesh`. What they run is loaded only when one of them is called. */
export function registerServerCommands(program: Command): void {
  withSettings(
    program
      .command("dev")
      .summary("run everything in this process")
      .description(
        "Runs all services and a PostgreSQL of its own in this process. For development; CADRE_MODE=production refuses what is not safe.",
      )
      .option("--reset", "delete the data directory first, after asking")
      .option("--yes", "with --reset: do not ask")
      .option("--json", "print one line of JSON when ready, instead of the screen"),
  ).action(async (options: Record<string, unknown>) => {
    const { runDev } = await import("./server/run-dev.ts");
    process.exitCode = await runDev(options);
  });

  withSettings(
    program
      .command("serve")
      .summary("run services as processes of their own")
      .description(
        "Runs services in this process that call their peers by gRPC over mutual TLS. Each finds the others by CADRE_MESH_<SERVICE>. In the names of the mesh's files, {service} stands for the service's name.",
      )
      .argument("<services...>", "credentials, tools, registry, orchestrator, events or gateway")
      .option("--json", "print one line of JSON when ready, instead of the screen"),
  ).action(async (services: string[], options: Record<string, unknown>) => {
    const { runServe } = await import("./server/run-serve.ts");
    process.exitCode = await runServe(services, options);
  });

  withSettings(
    program
      .command("mesh")
      .summary("run each service as a process of its own, on this machine")
      .description(
        "Starts credentials, tools, registry, two orchestrators, events and two gateways as processes over gRPC with mutual TLS from a development CA, and a PostgreSQL for them. A process that ends is started again.",
      )
      .option("--json", "print one line of JSON when ready, instead of the screen"),
  ).action(async (options: Record<string, unknown>) => {
    const { runMesh } = await import("./server/run-mesh.ts");
    process.exitCode = await runMesh(options);
  });
}

/** Every setting is a flag of the same name. */
function withSettings(command: Command): Command {
  for (const [name, { description }] of Object.entries(serverSettings)) {
    command.addOption(new Option(`${flagOf(name)} <value>`, description));
  }
  return command;
}
