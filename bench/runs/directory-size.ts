import type { Dirent } from "node:fs";
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";

/** Bytes that a directory's files hold; those below a folder named in `except` are left out. */
export async function directorySize(directory: string, except: readonly string[] = []): Promise<number> {
  let bytes = 0;
  for (const entry of await entriesOf(directory)) {
    if (except.includes(entry.name)) continue;
    const path = join(directory, entry.name);
    bytes += entry.isDirectory() ? await directorySize(path, except) : await fileSize(path);
  }
  return bytes;
}

async function entriesOf(directory: string): Promise<readonly Dirent[]> {
  try {
    return await readdir(directory, { withFileTypes: true });
  } catch (error) {
    if (hasVanished(error)) return [];
    throw error;
  }
}

async function fileSize(path: string): Promise<number> {
  try {
    // Not the blocks it takes: RocksDB has those reserved long before they hold anything.
    return (await lstat(path)).size;
  } catch (error) {
    if (hasVanished(error)) return 0;
    throw error;
  }
}

/** Databases remove files at any time. */
function hasVanished(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ENOENT";
}
