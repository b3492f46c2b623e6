import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmdirSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A file system of its own that can be full. */
export interface SmallDisk {
  readonly path: string;
  /** Takes all that is free now; how many bytes. */
  fill(): number;
  /** Gives back what `fill` took. */
  free(): void;
  /** Removes it with all that is on it. */
  unmount(): void;
}

/** Mounts a tmpfs, which needs root. */
export function mountSmallDisk(megabytes: number): SmallDisk {
  const path = mkdtempSync(join(tmpdir(), "cadre disk "));
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${megabytes}m,mode=0700`, "tmpfs", path]);
  const ballast = join(path, "ballast");
  return {
    path,
    fill() {
      const file = openSync(ballast, "a");
      let bytes = 0;
      try {
        for (let size = 1024 * 1024; size >= 4096; size /= 2) bytes += writeAll(file, Buffer.alloc(size, 1));
      } finally {
        closeSync(file);
      }
      return bytes;
    },
    free: () => rmSync(ballast, { force: true }),
    unmount() {
      // Lazily: what still runs there must not keep a failed test's disk mounted.
      execFileSync("umount", ["--lazy", path]);
      rmdirSync(path);
    },
  };
}

/** Writes a piece again and again until the disk is full; how many bytes. */
function writeAll(file: number, piece: Uint8Array): number {
  for (let bytes = 0; ; ) {
    try {
      bytes += writeSync(file, piece);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
      return bytes;
    }
  }
}
