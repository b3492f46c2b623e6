import { readFileSync } from "node:fs";
import { mkdtemp, realpath } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

let parent = tmpdir();

/** Where contestants keep their data from now on; the system's temporary directory unless said. */
export function keepDataIn(directory: string): void {
  parent = directory;
}

/** Makes an empty directory for a contestant's data. */
export async function newDirectory(name: string): Promise<string> {
  return mkdtemp(join(await realpath(parent), `cadre-bench-${name}-`));
}

/**
 * The type of the file system that contestants keep their data on, for example `ext4`.
 *
 * @throws Error if it is in memory, where it costs nothing to sync
 */
export async function dataFileSystem(): Promise<string> {
  const path = await realpath(parent);
  // device, mount point, type, options …; of nested mounts the longest mount point is the one.
  const mounts = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, point]) => point !== undefined && (point === "/" || path === point || path.startsWith(`${point}/`)))
    .sort(([, a], [, b]) => (b?.length ?? 0) - (a?.length ?? 0));
  const type = mounts[0]?.[2] ?? "unknown";
  if (type === "tmpfs" || type === "ramfs") {
    throw new Error(`${path} is in memory (${type}): give a directory on a disk with --data`);
  }
  return type;
}
