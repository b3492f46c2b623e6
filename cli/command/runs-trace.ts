import type { Command } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { printJson, printLine } from "../output.ts";

/** Adds `cadre runs trace`. */
export function registerRunTrace(runs: Command): void {
  withConnection(runs.command("trace"))
    .description("Sends a run as a trace to an OpenTelemetry collector: a span for the run and for each step.")
    .argument("<run>", "run_…")
    .requiredOption("--otlp <url>", "where the collector takes OTLP over HTTP, for example http://127.0.0.1:4318")
    .option("--json", "print JSON")
    .action(async (runId: string, flags: ConnectionFlags & { readonly otlp: string; readonly json?: boolean }) => {
      // OpenTelemetry takes longer to load than most commands take in all.
      const { exportRunTrace } = await import("../run-trace.ts");
      const { run } = await (await connect(flags)).runs.get(runId);
      const { spans, traceId } = await exportRunTrace(run, flags.otlp);
      if (flags.json === true) return printJson({ trace_id: traceId, spans });
      printLine(`${spans} spans are in the trace ${traceId}`);
    });
}
