import type { TokenReader } from "./token-reader.ts";

/** Numbers from `start` to `last`, both included. */
interface NumberRange {
  readonly start: number;
  readonly last: number;
}

/** The rest of `reserved 1, 3 to 5, max;` or `reserved "a", "b";`, after the word. Editions leave the quotes out. */
export function parseReserved(
  reader: TokenReader,
  min: number,
  max: number,
): { readonly ranges: readonly NumberRange[]; readonly names: readonly string[] } {
  if (reader.peek().kind === "integer" || reader.isSymbol("-")) {
    const ranges = parseRanges(reader, min, max);
    reader.expect(";");
    return { ranges, names: [] };
  }
  const names: string[] = [];
  do names.push(reader.peek().kind === "string" ? reader.text("a name") : reader.identifier("a number or a name"));
  while (reader.take(","));
  reader.expect(";");
  return { ranges: [], names };
}

/** `1, 3 to 5, 7 to max`. */
export function parseRanges(reader: TokenReader, min: number, max: number): readonly NumberRange[] {
  const ranges: NumberRange[] = [];
  do {
    const start = reader.integer("a number", min, max);
    let last = start;
    if (reader.take("to")) last = reader.take("max") ? max : reader.integer("the end of a range", start, max);
    ranges.push({ start, last });
  } while (reader.take(","));
  return ranges;
}
