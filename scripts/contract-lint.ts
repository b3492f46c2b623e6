import { execFileSync } from "node:child_process";
import { lintOwnRules } from "../cli/contracts/own-rules.ts";

// Lints what buf cannot know of our contracts.
const set = execFileSync("buf", ["build", "proto", "--as-file-descriptor-set", "-o", "-#format=binpb"], {
  maxBuffer: 64 * 1024 * 1024,
});
const problems = lintOwnRules(set, (file) => file.startsWith("cadre/"));
for (const problem of problems) process.stderr.write(`${problem}\n`);
process.exitCode = problems.length === 0 ? 0 : 1;
