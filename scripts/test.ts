import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checks } from "./check.ts";
import { countTests, type TestCounts } from "./count-tests.ts";
import { failedTests } from "./failed-tests.ts";
import { runSteps } from "./steps.ts";

// `npm test`: every check, then every test. The last lines name what failed, and
// the very last one counts both.

interface Suite extends TestCounts {
  readonly failures: readonly string[];
}

const directory = mkdtempSync(join(tmpdir(), "cadre-test-"));
try {
  const checked = await runSteps(checks);
  const suites = [
    runTests(["--exclude", "test/{fault,load}/**", "--exclude", "test/attack/transport-{flood,slow}.test.ts"]),
    // What kills processes mostly waits: for starts, leases, runs. Two of a kind do not disturb each other.
    runTests(["test/fault"]),
    // A minute of chat that is in nobody's way, beside a minute of clients that do nothing.
    runTests(["test/load", "test/attack/transport-slow"]),
    // What floods has the machine to itself.
    runTests(["test/attack/transport-flood", "--maxWorkers=1"]),
  ];
  const passed = checked.passed + sum(suites, "passed");
  const failed = checked.failed.length + sum(suites, "failed");
  const skipped = sum(suites, "skipped");
  process.stdout.write(
    "not run: the suites against a real Kafka (npm run test:backends), the full sets of faults (npm run test:faults)\n",
  );
  const failures = [...checked.failed.map((title) => `check: ${title}`), ...suites.flatMap((suite) => suite.failures)];
  for (const failure of failures) process.stdout.write(`failed: ${failure}\n`);
  process.stdout.write(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}\n`);
  process.exitCode = failed === 0 ? 0 : 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}

function runTests(options: readonly string[]): Suite {
  const report = join(directory, "report.json");
  rmSync(report, { force: true });
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const { status } = spawnSync("vitest", ["run", ...reporters, ...options], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  const counted = countTests(report);
  const failures = failedTests(report);
  if (status === 0) return { ...counted, failures };
  // A runner that failed without a failed test (a file that does not load, an
  // error between tests) is a failure all the same.
  return {
    ...counted,
    failed: Math.max(counted.failed, failures.length, 1),
    failures: failures.length > 0 ? failures : [`vitest run ${options.join(" ")} ended with ${status}: see above`],
  };
}

function sum(suites: readonly TestCounts[], what: keyof TestCounts): number {
  return suites.reduce((total, counted) => total + counted[what], 0);
}
