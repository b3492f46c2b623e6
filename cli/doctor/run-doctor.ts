import { styleText } from "node:util";
import { type ConnectionFlags, resolveConnection } from "../connection.ts";
import { type ExitCode, exitCode } from "../exit-code.ts";
import { printable, printJson, printLine } from "../output.ts";
import { checkDataDirectory, checkPorts, checkVersions } from "./check-machine.ts";
import { checkServer } from "./check-server.ts";
import type { Finding } from "./finding.ts";

const marks = { ok: "✓", warning: "!", failed: "✗", skipped: "–" } as const;
const colours = { ok: "green", warning: "yellow", failed: "red", skipped: "dim" } as const;

/** Looks at everything, prints one screen, and returns the exit code: that of the first thing that failed. */
export async function runDoctor(flags: ConnectionFlags & { readonly json?: boolean }): Promise<ExitCode> {
  const connection = await resolveConnection(flags);
  const { checkConfiguration, configuredPorts } = await import("./check-configuration.ts");
  const { checkKafka } = await import("./check-kafka.ts");
  const findings: readonly Finding[] = [
    checkVersions(),
    ...checkConfiguration(connection, process.env),
    ...(await checkServer(connection)),
    ...(await checkKafka(process.env)),
    ...(await checkDataDirectory(connection)),
    ...(await checkPorts(configuredPorts(process.env))),
  ];
  const failed = findings.filter(({ state }) => state === "failed");
  if (flags.json === true) {
    printJson({
      ok: failed.length === 0,
      findings: findings.map(({ name, state, detail, remedy = "" }) => ({ name, state, detail, remedy })),
    });
  } else print(findings);
  return failed.length === 0 ? exitCode.done : (failed[0]?.exitCode ?? exitCode.failed);
}

function print(findings: readonly Finding[]): void {
  const width = Math.max(...findings.map(({ name }) => name.length));
  for (const { name, state, detail } of findings) {
    const mark = styleText(colours[state], marks[state], { stream: process.stdout });
    printLine(`${mark} ${name.padEnd(width)}  ${printable(detail)}`);
  }
  const remedies = new Set(findings.flatMap(({ remedy }) => (remedy === undefined || remedy === "" ? [] : [remedy])));
  printLine();
  if (remedies.size === 0) printLine('All is well. Try: cadre chat --message "What is 6 times 7?"');
  else {
    printLine("What to do next:");
    for (const remedy of remedies) printLine(`  ${remedy}`);
  }
}
