import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";

// `npm run test:faults`: the fault and load tests of `npm test`, then every full
// set of test/faults, each in a command of its own of at most nine minutes.
//
//   npm run test:faults                  all of it
//   npm run test:faults -- kills cuts    the sets whose names contain one of these
//   SEED=7 npm run test:faults -- kills  again with the seed that a set has printed

const maxMs = 540_000;
const ending = ".full.test.ts";

interface FaultSet {
  readonly name: string;
  readonly options: readonly string[];
}

const sets: readonly FaultSet[] = [
  { name: "quick", options: ["test/fault"] },
  { name: "load", options: ["test/load", "--maxWorkers=1"] },
  ...readdirSync("test/faults")
    .filter((file) => file.endsWith(ending))
    .sort()
    .map((file) => ({
      name: file.slice(0, -ending.length),
      options: ["--config", "test/faults/vitest.config.ts", `test/faults/${file}`],
    })),
];

const wanted = process.argv.slice(2);
const chosen = sets.filter(({ name }) => wanted.length === 0 || wanted.some((part) => name.includes(part)));
if (chosen.length === 0) {
  process.stderr.write(`none of ${sets.map(({ name }) => name).join(", ")} is meant by ${wanted.join(" ")}\n`);
  process.exit(2);
}

const lines: string[] = [];
let failed = 0;
for (const { name, options } of chosen) {
  const startedMs = performance.now();
  const { status, error } = spawnSync("vitest", ["run", ...options], {
    stdio: "inherit",
    // The quick ones are many commands in one.
    ...(name === "quick" ? {} : { timeout: maxMs }),
  });
  const seconds = Math.round((performance.now() - startedMs) / 1_000);
  if (status !== 0) failed += 1;
  lines.push(
    `${status === 0 ? "ok  " : "FAIL"} ${name} (${seconds} s)${error === undefined ? "" : `: ${error.message}`}`,
  );
}
process.stdout.write(`${lines.join("\n")}\n${chosen.length - failed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;
