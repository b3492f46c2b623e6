import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compilePattern, PatternBudgetError } from "./linear-pattern.ts";

const plenty = () => ({ steps: 10_000_000 });

/** Sources that use every construct; the native engine says what is right. */
const sources = [
  "",
  "a",
  "^a$",
  "^$",
  "a|b|",
  "^(?:ab|cd)+$",
  "^[a-z0-9]+(?:-[a-z0-9]+)*$",
  "^(a*)*$",
  "^(a|b)*?c$",
  "^a{2}$",
  "^a{2,}$",
  "^a{1,3}b?$",
  "^a{0}$",
  "^.$",
  "^[^ab]$",
  "^[\\]\\\\^-]+$",
  "^\\p{Lu}\\P{Lu}*$",
  "^\\d+\\.\\d{2}$",
  "\\bab\\b",
  "\\Ba",
  "^\\u0061\\x62\\u{63}\\cA?$",
  "^\\ud83d\\ude00$",
  "^(?<year>\\d{4})-(?<month>\\d\\d)$",
  "^\\$\\{[a-z]+\\}$",
  "^[]$",
  "^[^]$",
  "^\\0$",
  "a^b",
  "(?:^|,)x(?:,|$)",
  "^[\\w.+-]+@[\\w-]+\\.[\\w.-]+$",
];

/** Of these, fast-check cannot make up texts that match. */
const notGenerated = new Set(["", "\\bab\\b", "\\Ba", "^[]$", "^\\0$", "a^b"]);

describe("agrees with the native engine", () => {
  test.each(sources)("on %s", (source) => {
    const native = new RegExp(source, "u");
    const linear = compilePattern(source);
    const characters = [..."abcdx01-,. \n@$^{}]\\éÀΩ😀\u0000\u0001", "\ud83d"];
    const text = fc.array(fc.constantFrom(...characters), { maxLength: 8 }).map((list) => list.join(""));
    fc.assert(
      fc.property(notGenerated.has(source) ? text : fc.oneof(text, fc.stringMatching(native)), (sample) => {
        expect(linear.test(sample, plenty())).toBe(native.test(sample));
      }),
      { numRuns: 300 },
    );
  });
});

test("takes steps in proportion to the text, whatever the pattern", () => {
  for (const source of ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "a*a*a*a*a*b", "^(?:(?:a?){20})*$"]) {
    const linear = compilePattern(source);
    const stepsFor = (length: number): number => {
      const budget = plenty();
      linear.test(`${"a".repeat(length)}!`, budget);
      return 10_000_000 - budget.steps;
    };
    expect(stepsFor(4_000) / stepsFor(2_000)).toBeLessThan(2.1);
  }
});

test("ends when the budget does", () => {
  expect(() => compilePattern("^a*$").test("a".repeat(1_000), { steps: 100 })).toThrow(PatternBudgetError);
});
