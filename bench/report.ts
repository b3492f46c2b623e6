/** One figure beside another, or beside what is required. */
export interface Comparison {
  readonly bench: string;
  /** What was measured, with its unit. */
  readonly what: string;
  readonly ours: number;
  /** Who or what it is compared with. */
  readonly peer: string;
  readonly theirs: number;
  /** What must be reached, in words. */
  readonly target: string;
}

/** The middle of some figures; of an even number, the lower middle. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The value below which a share of some figures lies, by the nearest rank. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

/** Prints a table for people, then one line of JSON a comparison. */
export function printReport(comparisons: readonly Comparison[]): void {
  const rows = comparisons.map((row) => [
    row.what,
    format(row.ours),
    `${row.peer}: ${format(row.theirs)}`,
    format(row.ours / row.theirs),
    row.target,
  ]);
  const table = [["what", "ours", "theirs", "ratio", "target"], ...rows];
  const widths = (table[0] ?? []).map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
  const lines = table.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  process.stdout.write(`\n${lines.join("\n")}\n\n`);
  for (const { bench, what, ours, peer, theirs } of comparisons) {
    process.stdout.write(
      `${JSON.stringify({ bench, what, ours, peer, theirs, ratio: Number((ours / theirs).toFixed(3)) })}\n`,
    );
  }
}

function format(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(3)));
}
