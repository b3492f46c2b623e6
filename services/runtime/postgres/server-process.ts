import { execFile } from "node:child_process";
import { readFile, readlink, realpath } from "node:fs/promises";
import { uptime } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

/** What a data directory's `postmaster.pid` says of the server that wrote it. */
export interface ServerProcess {
  readonly pid: number;
  readonly port: number;
  /** Seconds since the epoch. */
  readonly startedAtSeconds: number;
  /** `starting`, `ready`, `stopping`, `standby`; empty while it is being written. */
  readonly status: string;
}

/** Reads `postmaster.pid` of a data directory; `undefined` if there is none, or it is not whole yet. */
export async function readServerProcess(directory: string): Promise<ServerProcess | undefined> {
  let text: string;
  try {
    text = await readFile(join(directory, "postmaster.pid"), "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  // pid, data directory, start time, port, socket directory, address, shared memory, status
  const lines = text.split("\n");
  const pid = Number(lines[0]);
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined;
  return {
    pid,
    startedAtSeconds: Number(lines[2] ?? "0"),
    port: Number(lines[3] ?? "0"),
    status: (lines[7] ?? "").trim(),
  };
}

/**
 * Whether the server that wrote `postmaster.pid` still runs on that directory.
 * After a crash of the machine, or in a restarted container, its pid may belong
 * to another program.
 */
export async function isServerAlive(server: ServerProcess, directory: string): Promise<boolean> {
  if (!isProcessAlive(server.pid)) return false;
  // Started before this boot (one minute of tolerance: both clocks are coarse, and may have been set).
  const bootedAtSeconds = Date.now() / 1000 - uptime();
  const isFromEarlierBoot = server.startedAtSeconds > 0 && server.startedAtSeconds < bootedAtSeconds - 60;
  try {
    if (process.platform === "linux") {
      const stat = await readFile(`/proc/${server.pid}/stat`, "utf8");
      if (stat.slice(stat.lastIndexOf(")")).startsWith(") Z")) return false;
      // The server works in its data directory.
      return (await readlink(`/proc/${server.pid}/cwd`)) === (await realpath(directory));
    }
    const { stdout } = await promisify(execFile)("ps", ["-o", "command=", "-p", String(server.pid)]);
    return stdout.includes("postgres") && !isFromEarlierBoot;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESRCH") return false;
    // Not ours to look at: another user's process. Believe the file unless the machine was booted since.
    return !isFromEarlierBoot;
  }
}

/** Whether a process with that id exists. */
export function isProcessAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
