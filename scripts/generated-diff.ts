import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

// Generates anew into a copy and compares: what is committed in gen/ must be
// what the contracts say.
const copy = mkdtempSync(join(tmpdir(), "cadre-generated-"));
try {
  for (const entry of ["proto", "third_party", "buf.yaml", "buf.gen.yaml"]) {
    cpSync(entry, join(copy, entry), { recursive: true });
  }
  execFileSync("buf", ["generate"], { cwd: copy, stdio: "inherit" });
  execFileSync("buf", ["build", "proto", "--as-file-descriptor-set", "-o", "gen/descriptor-set.binpb"], {
    cwd: copy,
    stdio: "inherit",
  });
  const result = spawnSync("diff", ["-rq", join(copy, "gen"), "gen", "-x", "package.json", "-x", "node_modules"], {
    stdio: "inherit",
  });
  if (result.status !== 0) process.stderr.write("gen/ is not what the contracts say: run `npm run generate`.\n");
  process.exitCode = result.status ?? 1;
} finally {
  rmSync(copy, { recursive: true, force: true });
}
