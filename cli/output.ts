import { styleText } from "node:util";
import type { JsonValue } from "@cadre/sdk";

/** A column of a table: its title, and its cell of a row. */
export interface Column<Row> {
  readonly title: string;
  readonly cell: (row: Row) => string;
}

/** Writes a line to standard output. */
export function printLine(text = ""): void {
  process.stdout.write(`${text}\n`);
}

/** Writes JSON on one line to standard output, for scripts. */
export function printJson(value: JsonValue): void {
  printLine(JSON.stringify(value));
}

/** Writes a notice to standard error, so that it never mixes with a result. */
export function printNotice(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Writes a table for people to standard output, or `empty` if there are no rows. */
export function printTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[], empty: string): void {
  if (rows.length === 0) return printNotice(empty);
  const cells = rows.map((row) => columns.map(({ cell }) => printable(cell(row)).replaceAll("\n", " ")));
  const widths = columns.map(({ title }, column) =>
    Math.max(title.length, ...cells.map((row) => row[column]?.length ?? 0)),
  );
  const line = (texts: readonly string[]) =>
    texts.map((text, column) => (column === texts.length - 1 ? text : text.padEnd(widths[column] ?? 0))).join("  ");
  printLine(dim(line(columns.map(({ title }) => title.toUpperCase()))));
  for (const row of cells) printLine(line(row));
}

/** Writes names and values under each other to standard output. */
export function printFields(fields: readonly (readonly [name: string, value: string])[]): void {
  const width = Math.max(...fields.map(([name]) => name.length));
  for (const [name, value] of fields) {
    const indented = printable(value).replaceAll("\n", `\n${" ".repeat(width + 2)}`);
    printLine(`${dim(name.padEnd(width))}  ${indented}`);
  }
}

// Escape sequences in what a model or a tool wrote could move the cursor,
// rename the window or type for the user. C1 controls work like ESC on some
// terminals.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is meant
const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** A text without characters that a terminal would obey, but for tab and line feed. */
export function printable(text: string): string {
  return text.replaceAll("\r\n", "\n").replaceAll(controls, "\ufffd");
}

/** Dimmed where standard output is a terminal that has colours. */
export function dim(text: string): string {
  return styleText("dim", text, { stream: process.stdout });
}

/** Shortens a text for a cell. */
export function shorten(text: string, maxLength: number): string {
  return text.length <= maxLength ? text : `${text.slice(0, maxLength - 1)}…`;
}
