import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runProgram } from "../test/support/run-program.ts";
import { countTests } from "./count-tests.ts";
import { failedTests } from "./failed-tests.ts";

const root = mkdtempSync(join(tmpdir(), "cadre-failed-"));
const report = join(root, "report.json");
afterAll(() => rmSync(root, { recursive: true, force: true }));

const files: Readonly<Record<string, string>> = {
  "sums.test.js": `
    describe("a sum", () => {
      test("that is right", () => expect(1 + 1).toBe(2));
      test("that is wrong", () => expect(1 + 1, "one and one\\nagain").toBe(3));
      test("of much", () => { throw new Error("x".repeat(1_000)); });
    });`,
  "unloadable.test.js": `import "./nosuch.js"; test("never runs", () => undefined);`,
  "unready.test.js": `beforeAll(() => { throw new Error("not ready"); }); test("never runs", () => undefined);`,
  "nested.test.js": `
    describe("a part", () => {
      beforeAll(() => { throw new Error("not ready"); });
      test("never runs", () => undefined);
    });`,
};

beforeAll(async () => {
  for (const [file, text] of Object.entries(files)) writeFileSync(join(root, file), text);
  const options = ["--root", root, "--globals", "--reporter=json", `--outputFile.json=${report}`];
  const { code } = await runProgram("node_modules/.bin/vitest", ["run", ...options], { timeoutMs: 60_000 });
  expect(code).toBe(1);
});

test("tests that failed, and files without one that did, are listed with the first line of why", () => {
  const lines = failedTests(report, root).toSorted();
  expect(lines).toEqual([
    expect.stringMatching(/^nested\.test\.js: /),
    `sums.test.js › a sum › of much: Error: ${"x".repeat(293)}…`,
    expect.stringMatching(/^sums\.test\.js › a sum › that is wrong: AssertionError: one and one$/),
    expect.stringMatching(/^unloadable\.test\.js: .*nosuch/),
    "unready.test.js: not ready",
  ]);
});

test("a run that ended before it wrote a report lists and counts nothing", () => {
  const missing = join(root, "missing.json");
  expect(failedTests(missing)).toEqual([]);
  expect(countTests(missing)).toEqual({ passed: 0, failed: 0, skipped: 0 });
});
