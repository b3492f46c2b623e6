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

/** Rows of cells, the first one the headings. */
export type Table = readonly (readonly string[])[];

/** Prints a table for people, then one line of JSON a comparison. */
export function printReport(comparisons: readonly Comparison[]): void {
  process.stdout.write(`\n${textTable(comparisonTable(comparisons))}\n\n`);
  for (const { bench, what, ours, peer, theirs } of comparisons) {
    process.stdout.write(
      `${JSON.stringify({ bench, what, ours, peer, theirs, ratio: Number((ours / theirs).toFixed(3)) })}\n`,
    );
  }
}

/** Comparisons as a table. */
export function comparisonTable(comparisons: readonly Comparison[]): Table {
  const rows = comparisons.map((row) => [
    row.what,
    formatFigure(row.ours),
    `${row.peer}: ${formatFigure(row.theirs)}`,
    formatFigure(row.ours / row.theirs),
    row.target,
  ]);
  return [["what", "ours", "theirs", "ratio", "target"], ...rows];
}

/** A table in columns of spaces, for a terminal. */
export function textTable(table: Table): string {
  const widths = (table[0] ?? []).map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
  return table
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** A table in Markdown; every column but the first is of numbers, and stands to the right. */
export function markdownTable([headings = [], ...rows]: Table): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const rule = headings.map((_, column) => (column === 0 ? "---" : "---:"));
  return [line(headings), line(rule), ...rows.map(line)].join("\n");
}

/** Three digits that matter, or a whole number with commas. */
export function formatFigure(value: number): string {
  return Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(3)));
}
