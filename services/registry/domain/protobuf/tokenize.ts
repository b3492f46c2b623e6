import { invalidSchema } from "../schema-fault.ts";

/** A word of a `.proto` file. `text` is as it stands there, of a string what it means, byte by byte. */
export interface Token {
  readonly kind: "identifier" | "integer" | "float" | "string" | "symbol" | "end";
  readonly text: string;
  /** Counts from 1. */
  readonly line: number;
  readonly column: number;
}

/** Bounds what a text costs; a megabyte of real contracts has about 150,000. */
const maxTokens = 500_000;

const blank = /(?:[ \t\r\n\f\v]+|\/\/[^\n]*|\/\*[^]*?\*\/)+/y;
const identifier = /[A-Za-z_][A-Za-z0-9_]*/y;
const float = /(?:\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)/y;
const integer = /(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9]\d*)/y;
const string = /"(?:[^"\\\n\0]|\\[^\n\0])*"|'(?:[^'\\\n\0]|\\[^\n\0])*'/y;
const symbol = /[;,=(){}[\]<>.\-:/]/y;

/**
 * Cuts a `.proto` file into words
 * (https://protobuf.com/docs/language-spec#lexical-analysis). The last one is
 * the end.
 *
 * @throws AppError INVALID_SCHEMA naming line and column
 */
export function tokenize(text: string): readonly Token[] {
  const tokens: Token[] = [];
  let line = 1;
  let lineStart = 0;
  let position = text.startsWith("\uFEFF") ? 1 : 0;
  const at = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = position;
    return pattern.exec(text)?.[0];
  };
  const countLines = (passed: string): void => {
    for (let next = passed.indexOf("\n"); next !== -1; next = passed.indexOf("\n", next + 1)) {
      line += 1;
      lineStart = position + next + 1;
    }
  };
  for (;;) {
    const skipped = at(blank) ?? "";
    countLines(skipped);
    position += skipped.length;
    const column = position - lineStart + 1;
    if (position === text.length) {
      tokens.push({ kind: "end", text: "", line, column });
      return tokens;
    }
    const [kind, found] = wordAt(at);
    const where = `line ${line}, column ${column}`;
    if (text.startsWith("/*", position)) throw invalidSchema("a comment that does not end", where);
    if (found === undefined) throw invalidSchema("a character that no schema has here", where);
    tokens.push({ kind, text: kind === "string" ? unescape(found.slice(1, -1), where) : found, line, column });
    if (tokens.length > maxTokens) throw invalidSchema(`more than ${maxTokens} words`);
    position += found.length;
    if ((kind === "integer" || kind === "float") && at(identifier) !== undefined) {
      throw invalidSchema("a number runs into a name", where);
    }
  }
}

function wordAt(at: (pattern: RegExp) => string | undefined): [Token["kind"], string | undefined] {
  let found = at(identifier);
  if (found !== undefined) return ["identifier", found];
  found = at(float);
  if (found !== undefined) return ["float", found];
  found = at(integer);
  if (found !== undefined) return ["integer", found];
  found = at(string);
  if (found !== undefined) return ["string", found];
  return ["symbol", at(symbol)];
}

const simpleEscapes: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
  "\\": "\\",
  "'": "'",
  '"': '"',
  "?": "?",
};

/** What a string literal means, one character a byte. */
function unescape(literal: string, where: string): string {
  const bytes = Buffer.from(literal, "utf8").toString("latin1");
  return bytes.replace(
    /\\(?:[xX]([0-9a-fA-F]{1,2})|([0-7]{1,3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([^]))/g,
    (_all, hex?: string, octal?: string, short?: string, long?: string, simple?: string) => {
      if (hex !== undefined) return String.fromCharCode(Number.parseInt(hex, 16));
      if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8) & 0xff);
      const point = short ?? long;
      if (point !== undefined) {
        const code = Number.parseInt(point, 16);
        if (code > 0x10ffff) throw invalidSchema("an escape beyond Unicode", where);
        return Buffer.from(String.fromCodePoint(code), "utf8").toString("latin1");
      }
      const character = simpleEscapes[simple ?? ""];
      if (character === undefined) throw invalidSchema(`\\${simple} is no escape`, where);
      return character;
    },
  );
}
