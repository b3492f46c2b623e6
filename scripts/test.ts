import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checks } from "./check.ts";
import { runSteps } from "./steps.ts";

// `npm test`: every check, then every test. The last line counts both.
const directory = mkdtempSync(join(tmpdir(), "cadre-test-"));
try {
  const checked = await runSteps(checks);
  const report = join(directory, "report.json");
  const tests = spawnSync("vitest", ["run", "--reporter=default", "--reporter=json", `--outputFile.json=${report}`], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  const counted = countTests(report);
  const passed = checked.passed + counted.passed;
  // A runner that failed without a failed test (a file that does not load, an
  // error between tests) is a failure all the same.
  const failed = checked.failed + Math.max(counted.failed, tests.status === 0 ? 0 : 1);
  process.stdout.write(
    `${passed} passed, ${failed} failed${counted.skipped > 0 ? `, ${counted.skipped} skipped` : ""}\n`,
  );
  process.exitCode = failed === 0 ? 0 : 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}

function countTests(report: string): { passed: number; failed: number; skipped: number } {
  const result: unknown = JSON.parse(readFileSync(report, "utf8"));
  const number = (name: string): number => Number(Reflect.get(Object(result), name));
  return {
    passed: number("numPassedTests"),
    failed: number("numFailedTests"),
    skipped: number("numPendingTests") + number("numTodoTests"),
  };
}
