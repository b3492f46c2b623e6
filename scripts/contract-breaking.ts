import { spawnSync } from "node:child_process";

// `buf breaking` against the branch `main`, or `origin/main` in a clone of
// another branch. A repository without either, or whose main has no contracts
// yet, has nothing to break.
for (const branch of ["main", "origin/main"]) {
  const known = spawnSync("git", ["cat-file", "-e", `${branch}:buf.yaml`]);
  if (known.status !== 0) continue;
  const result = spawnSync("buf", ["breaking", "--against", `.git#ref=${branch}`], { stdio: "inherit" });
  process.exit(result.status ?? 1);
}
