import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { countTests } from "./count-tests.ts";

// `npm run test:backends`: the suites of test/backends, against real components
// that it downloads, starts and takes down. The last line counts the tests.
//
//   npm run test:backends                 all of them
//   npm run test:backends -- restart      the suites whose names contain this

const directory = mkdtempSync(join(tmpdir(), "cadre-test-"));
try {
  const report = join(directory, "report.json");
  const { status } = spawnSync(
    "vitest",
    [
      "run",
      ...["--config", "test/backends/vitest.config.ts"],
      ...["--reporter=default", "--reporter=json", `--outputFile.json=${report}`],
      ...process.argv.slice(2),
    ],
    { stdio: "inherit" },
  );
  const { passed, failed } = countTests(report);
  // A suite that does not load is a failure without a failed test.
  const counted = Math.max(failed, status === 0 ? 0 : 1);
  process.stdout.write(`${passed} passed, ${counted} failed\n`);
  process.exitCode = counted === 0 ? 0 : 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}
