import { exitCode } from "./exit-code.ts";
import { CliError } from "./failure.ts";

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Parses `500ms`, `30s`, `10m`, `12h` or `90d` into milliseconds. Throws CliError 2. */
export function parseDurationMs(text: string): number {
  const [, amount, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text) ?? [];
  const factor = unit === undefined ? undefined : unitMs[unit];
  if (amount === undefined || factor === undefined) {
    throw new CliError(exitCode.usage, `${JSON.stringify(text)} is no duration`, "For example: 30s, 10m, 12h or 90d.");
  }
  return Math.round(Number(amount) * factor);
}
