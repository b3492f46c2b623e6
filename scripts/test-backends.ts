import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { countTests } from "./count-tests.ts";
import { failedTests } from "./failed-tests.ts";

// `npm run test:backends`: the suites of test/backends, against real components
// that they download, start and take down. The last lines name what failed, and
// the very last one counts the tests.
//
//   npm run test:backends                 those against one broker of Kafka
//   npm run test:backends -- cluster      the suites whose names contain this
//   npm run test:backends -- --full       all of them; each of the long ones takes at most nine minutes

const directory = "test/backends";
const maxMs = 540_000;
const endings = { quick: ".backend.test.ts", full: ".full.test.ts" } as const;

const wanted = process.argv.slice(2).filter((argument) => argument !== "--full");
const isFull = process.argv.includes("--full");
const chosen = (ending: string): readonly string[] =>
  readdirSync(directory)
    .filter((file) => file.endsWith(ending))
    .filter((file) => wanted.length === 0 || wanted.some((part) => file.slice(0, -ending.length).includes(part)))
    .map((file) => `${directory}/${file}`)
    .sort();
const quick = chosen(endings.quick);
const full = isFull || wanted.length > 0 ? chosen(endings.full) : [];
if (quick.length + full.length === 0) {
  process.stderr.write(`no suite of ${directory} is meant by ${wanted.join(" ")}\n`);
  process.exit(2);
}

const reports = mkdtempSync(join(tmpdir(), "cadre-test-"));
let [passed, failed] = [0, 0];
const failures: string[] = [];

/** Runs files under one configuration, and counts their tests. */
function run(configuration: string, files: readonly string[], timeout?: number): void {
  const report = join(reports, `${passed + failed}-${files.length}.json`);
  const { status } = spawnSync(
    "vitest",
    [
      ...["run", "--config", `${directory}/${configuration}`],
      ...["--reporter=default", "--reporter=json", `--outputFile.json=${report}`],
      ...files,
    ],
    { stdio: "inherit", ...(timeout === undefined ? {} : { timeout }) },
  );
  const counts = countTests(report);
  const named = failedTests(report);
  passed += counts.passed;
  // A suite that does not load is a failure without a failed test.
  failed += Math.max(counts.failed, status === 0 ? 0 : 1);
  failures.push(...named);
  if (status !== 0 && named.length === 0) failures.push(`${files.join(" ")} ended with ${status}: see above`);
}

try {
  if (quick.length > 0) run("vitest.config.ts", quick);
  for (const file of full) run("vitest.full.config.ts", [file], maxMs);
} finally {
  rmSync(reports, { recursive: true, force: true });
}
for (const failure of failures) process.stdout.write(`failed: ${failure}\n`);
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;
