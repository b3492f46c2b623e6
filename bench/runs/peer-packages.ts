import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Where the peers' packages are installed: with the benchmark, not with the project. */
const directory = fileURLToPath(new URL("./peers/", import.meta.url));
const stamp = `${directory}node_modules/.installed`;

/** A file of the folder of the peers. */
export function peerFile(path: string): string {
  return `${directory}${path}`;
}

/** The version of a peer's package that is installed. */
export function peerVersion(name: string): string {
  const { version } = JSON.parse(readFileSync(peerFile(`node_modules/${name}/package.json`), "utf8")) as {
    readonly version: string;
  };
  return version;
}

/** Installs what the peers' lock file says, unless it is there (240 MB, of which Restate's server takes 220). */
export async function installPeers(): Promise<void> {
  const digest = createHash("sha256")
    .update(readFileSync(peerFile("package-lock.json")))
    .digest("hex");
  if (installedDigest() === digest) return;
  process.stderr.write("Installing Restate and DBOS for the comparison (npm ci in bench/runs/peers; 240 MB, once) …\n");
  // None of them needs its install script; one would report the installation to its maker.
  // The prefix is said: an npm that runs this script has told its environment of its own.
  const args = ["ci", "--prefix", directory, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const npm = spawn("npm", args, { cwd: directory, stdio: ["ignore", "inherit", "inherit"] });
  const [code] = (await once(npm, "exit")) as [number | null];
  if (code !== 0) throw new Error(`npm ci in ${directory} ended with ${code}`);
  writeFileSync(stamp, digest);
}

function installedDigest(): string {
  try {
    return readFileSync(stamp, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "";
    throw error;
  }
}
