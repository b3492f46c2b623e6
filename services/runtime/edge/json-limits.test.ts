import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AppError } from "../errors/app-error.ts";
import { assertJsonWithinLimits, jsonLimits } from "./json-limits.ts";

function check(text: string | Uint8Array): string {
  try {
    assertJsonWithinLimits(typeof text === "string" ? Buffer.from(text) : text);
    return "";
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    expect(error.reason).toBe("MALFORMED_MESSAGE");
    return error.message;
  }
}

/** What `JSON.parse` says of a text. */
function parses(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

test("every JSON text without a key that is there twice is taken", () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 8 }), fc.constantFrom("", " ", "\n\t\r "), (text, blank) => {
      // `fc.json` may write lone surrogates, which are no characters.
      fc.pre(text.isWellFormed() && !/\\u[dD][89a-fA-F]/.test(text));
      expect(check(`${blank}${text}${blank}`)).toBe("");
    }),
  );
});

test("a text with a byte changed is taken only if it is JSON", () => {
  fc.assert(
    fc.property(
      fc.json({ maxDepth: 4 }),
      fc.nat(),
      fc.constantFrom(...'{}[]",:0123456789.eE+-\\ tfnu\u0000'),
      (text, at, character) => {
        const position = at % (text.length + 1);
        const changed = text.slice(0, position) + character + text.slice(position + 1);
        fc.pre(changed.isWellFormed());
        if (check(changed) === "") expect(parses(changed)).toBe(true);
        else if (parses(changed)) expect(check(changed)).toMatch(/twice|half a character/);
      },
    ),
    { numRuns: 2_000 },
  );
});

describe("limits", () => {
  test.each([
    ["depth 64", "[".repeat(64) + "]".repeat(64), ""],
    ["depth 65", "[".repeat(65) + "]".repeat(65), "nested deeper than 64"],
    ["10,000 keys", `{${keys(10_000)}}`, ""],
    ["10,001 keys", `{${keys(10_001)}}`, "more than 10000 keys"],
    [
      "10,001 keys in many objects",
      `[${Array.from({ length: 10_001 }, () => '{"a":0}').join()}]`,
      "more than 10000 keys",
    ],
    ["one value too many", `[${Array(jsonLimits.maxValues).fill("0").join()}]`, "more than 50000 values"],
    ["a number of 1,025 digits", "1".repeat(1_025), "too many digits"],
  ])("%s", (_, text, message) => {
    expect(check(text)).toContain(message);
    expect(check(text) === "").toBe(message === "");
  });

  function keys(count: number): string {
    return Array.from({ length: count }, (_, index) => `"k${index}":0`).join();
  }
});

test.each([
  [`{"a":{"b":[0,{"c":tru}]}}`, "the field a.b[1].c is no JSON value"],
  [`{"a":1,"a":2}`, "the field a is there twice"],
  [`{"a":{"b":1},"c":{"b":1,"b":2}}`, "the field c.b is there twice"],
  [`{"a b secret":tru}`, "the field ? is no JSON value"],
  [`{"__proto__":1,"constructor":2}`, ""],
  [`{"__proto__":1,"__proto__":2}`, "the field __proto__ is there twice"],
  ["", "the JSON text ends too early"],
  ["\ufeff{}", "the JSON text is no JSON value"],
  ["{} {}", "the JSON text has bytes after its end"],
  ["[1,]", "the field [1] is no JSON value"],
  ['{"a":1,}', "the field a has a key that is no string"],
  ["01", "the JSON text has bytes after its end"],
  ["-", "the JSON text is no JSON value"],
  ['"\\ud83d\\ude00"', ""],
  ['"\\ude00\\ud83d"', "the JSON text has half a character"],
])("%s: %j", (text, message) => {
  expect(check(text)).toBe(message);
});

test("4 MiB of the worst kinds take less than 100 ms each", () => {
  const bytes = 4 * 1024 * 1024;
  for (const text of [
    `"${"\\u0041".repeat(bytes / 6 - 1)}"`,
    `"${"a".repeat(bytes - 2)}"`,
    `"${'\\"'.repeat(bytes / 2 - 1)}"`,
    " ".repeat(bytes),
    `{"${"k".repeat(bytes - 10)}":0}`,
    "[".repeat(bytes),
    "9".repeat(bytes),
  ]) {
    const buffer = Buffer.from(text);
    const before = process.cpuUsage();
    try {
      assertJsonWithinLimits(buffer);
    } catch (error) {
      expect(error).toBeInstanceOf(AppError);
    }
    expect(process.cpuUsage(before).user / 1_000).toBeLessThan(100);
  }
});
