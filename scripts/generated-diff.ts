import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errorReference } from "./error-reference.ts";
import { eventReference, readVectors } from "./event-reference.ts";

// Generates anew into a copy and compares: what is committed in gen/, and in
// the docs that are made from it, must be what the contracts say.
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
  const descriptorSet = readFileSync(join(copy, "gen/descriptor-set.binpb"));
  const isCurrent =
    result.status === 0 &&
    errorReference(descriptorSet) === readFileSync("docs/errors.md", "utf8") &&
    eventReference(descriptorSet, readVectors()) === readFileSync("docs/events.md", "utf8");
  if (!isCurrent) {
    process.stderr.write(
      "gen/, docs/errors.md or docs/events.md is not what the contracts say: run `npm run generate`.\n",
    );
  }
  process.exitCode = isCurrent ? 0 : 1;
} finally {
  rmSync(copy, { recursive: true, force: true });
}
