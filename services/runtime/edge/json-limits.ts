import { isUtf8 } from "node:buffer";
import { AppError } from "../errors/app-error.ts";

/** What a JSON text may be made of. */
export interface JsonLimits {
  /** Objects and arrays within each other. */
  readonly maxDepth: number;
  /** Keys of all objects together. */
  readonly maxKeys: number;
  /** Values of all kinds together. Each costs an object when the text becomes a message. */
  readonly maxValues: number;
}

/** The defaults. A text within them becomes a `google.protobuf.Struct` in well under 100 ms. */
export const jsonLimits: JsonLimits = Object.freeze({ maxDepth: 64, maxKeys: 10_000, maxValues: 50_000 });

/** Longer ones say nothing more: a double has 17 digits that matter. */
const maxNumberBytes = 1_024;

/**
 * Checks that bytes are one JSON text (RFC 8259) within limits: UTF-8 without
 * byte order mark, no key twice in an object, no lone surrogate, nothing after
 * the value. One pass over the bytes, linear in their number; builds nothing
 * but the set of keys of the objects that are open.
 *
 * @throws AppError MALFORMED_MESSAGE that names the field by its path, and never a value
 */
export function assertJsonWithinLimits(bytes: Uint8Array, limits: JsonLimits = jsonLimits): void {
  if (!isUtf8(bytes)) throw malformed("is not UTF-8", []);
  scan(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), limits);
}

/** An open object, with the keys that it has so far; or an open array, with the index that it is at. */
type Level = { readonly keys: Set<string>; key: string } | { readonly keys: undefined; index: number };

/** What may follow a backslash, but for `u`. */
const escapes = new Set(Buffer.from('"\\/bfnrt'));
const quote = 0x22;
const backslash = 0x5c;
const literals: Readonly<Record<number, Buffer>> = {
  0x74: Buffer.from("true"),
  0x66: Buffer.from("false"),
  0x6e: Buffer.from("null"),
};

function scan(text: Buffer, limits: JsonLimits): void {
  const levels: Level[] = [];
  const end = text.length;
  let position = 0;
  let keyCount = 0;
  let valueCount = 0;

  const fail = (problem: string): never => {
    throw malformed(problem, levels);
  };
  const skipBlank = (): void => {
    for (; position < end; position++) {
      const byte = text[position];
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return;
    }
  };
  /** Moves past a string whose opening quote is at `position`; true if it has an escape. */
  const skipString = (): boolean => {
    let escaped = false;
    for (position += 1; position < end; position++) {
      const byte = text[position] ?? 0;
      if (byte === quote) {
        position += 1;
        return escaped;
      }
      if (byte < 0x20) fail("has a control character in a string");
      if (byte === backslash) {
        escaped = true;
        position += 1;
        const escape = text[position];
        if (escape === 0x75) position = skipUnicodeEscape(text, position, fail);
        else if (escape === undefined || !escapes.has(escape)) fail("has a wrong escape");
      }
    }
    fail("ends within a string");
    return false;
  };
  const readKey = (keys: Set<string>): string => {
    if (text[position] !== quote) fail("has a key that is no string");
    const start = position;
    const escaped = skipString();
    const raw = text.toString("utf8", start + 1, position - 1);
    const key: string = escaped ? JSON.parse(`"${raw}"`) : raw;
    keyCount += 1;
    if (keyCount > limits.maxKeys) fail(`has more than ${limits.maxKeys} keys`);
    const { size } = keys;
    keys.add(key);
    if (keys.size === size) {
      const level = levels.at(-1);
      if (level?.keys !== undefined) level.key = key;
      fail("is there twice");
    }
    skipBlank();
    if (text[position] !== 0x3a) fail("has a key without a value");
    position += 1;
    return key;
  };
  const skipNumber = (): void => {
    const start = position;
    if (text[position] === 0x2d) position += 1;
    if (text[position] === 0x30) position += 1;
    else if (skipDigits(text, position) > position) position = skipDigits(text, position);
    else fail("is no JSON value");
    if (text[position] === 0x2e) {
      const digits = skipDigits(text, position + 1);
      if (digits === position + 1) fail("is no JSON number");
      position = digits;
    }
    if (text[position] === 0x65 || text[position] === 0x45) {
      position += 1;
      if (text[position] === 0x2b || text[position] === 0x2d) position += 1;
      const digits = skipDigits(text, position);
      if (digits === position) fail("is no JSON number");
      position = digits;
    }
    if (position - start > maxNumberBytes) fail("is a number of too many digits");
  };

  // Each round reads one value, then whatever closes or separates after it.
  for (;;) {
    skipBlank();
    const byte = text[position];
    if (byte === undefined) fail("ends too early");
    valueCount += 1;
    if (valueCount > limits.maxValues) fail(`has more than ${limits.maxValues} values`);
    if (byte === 0x7b || byte === 0x5b) {
      if (levels.length >= limits.maxDepth) fail(`is nested deeper than ${limits.maxDepth}`);
      position += 1;
      skipBlank();
      if (byte === 0x7b) {
        const level: Level = { keys: new Set(), key: "" };
        levels.push(level);
        if (text[position] !== 0x7d) {
          level.key = readKey(level.keys);
          continue;
        }
      } else {
        levels.push({ keys: undefined, index: 0 });
        if (text[position] !== 0x5d) continue;
      }
    } else if (byte === quote) skipString();
    else {
      const literal = literals[byte as number];
      if (literal === undefined) skipNumber();
      else if (text.subarray(position, position + literal.length).equals(literal)) {
        position += literal.length;
      } else fail("is no JSON value");
    }

    for (;;) {
      skipBlank();
      const level = levels.at(-1);
      const next = text[position];
      if (level === undefined) {
        if (next !== undefined) fail("has bytes after its end");
        return;
      }
      if (next === undefined) fail("ends too early");
      position += 1;
      if (level.keys === undefined) {
        if (next === 0x5d) {
          levels.pop();
          continue;
        }
        if (next !== 0x2c) fail("has a value that nothing separates from the next");
        level.index += 1;
        break;
      }
      if (next === 0x7d) {
        levels.pop();
        continue;
      }
      if (next !== 0x2c) fail("has a value that nothing separates from the next");
      skipBlank();
      level.key = readKey(level.keys);
      break;
    }
  }
}

function skipDigits(text: Buffer, from: number): number {
  let position = from;
  while (position < text.length && (text[position] ?? 0) >= 0x30 && (text[position] ?? 0) <= 0x39) position += 1;
  return position;
}

/** Moves past `uXXXX`, and past the second half of a pair; returns the position of its last byte. */
function skipUnicodeEscape(text: Buffer, position: number, fail: (problem: string) => never): number {
  const unit = hex4(text, position + 1);
  if (unit === undefined) return fail("has a wrong escape");
  if (unit < 0xd800 || unit > 0xdfff) return position + 4;
  const low = text[position + 5] === backslash && text[position + 6] === 0x75 ? hex4(text, position + 7) : undefined;
  if (unit > 0xdbff || low === undefined || low < 0xdc00 || low > 0xdfff) return fail("has half a character");
  return position + 10;
}

/** The number that four hexadecimal digits write; `undefined` if they are none. */
function hex4(text: Buffer, position: number): number | undefined {
  let value = 0;
  for (let index = position; index < position + 4; index++) {
    const byte = text[index] ?? 0;
    // The bit of 0x20 makes a letter a small one, and leaves a digit what it is.
    const letter = byte | 0x20;
    if (byte >= 0x30 && byte <= 0x39) value = value * 16 + byte - 0x30;
    else if (letter >= 0x61 && letter <= 0x66) value = value * 16 + letter - 0x57;
    else return undefined;
  }
  return value;
}

function malformed(problem: string, levels: readonly Level[]): AppError {
  const field = pathOf(levels);
  const where = field === "" ? "the JSON text" : `the field ${field}`;
  return new AppError("MALFORMED_MESSAGE", `${where} ${problem}`, {
    violations: field === "" ? [] : [{ field, message: problem }],
  });
}

/** `items[2].name`; what is no plain name, and could be data, is left out as `?`. */
function pathOf(levels: readonly Level[]): string {
  let path = "";
  for (const level of levels) {
    if (level.keys === undefined) path += `[${level.index}]`;
    else if (level.key !== "")
      path += `${path === "" ? "" : "."}${/^[A-Za-z_]\w{0,63}$/.test(level.key) ? level.key : "?"}`;
  }
  return path.slice(0, 256);
}
