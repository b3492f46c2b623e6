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
 * - `running`: the process is that server, for certain. Only then may it be
 *   signalled.
 * - `gone`: the process ended, or is another program: its id was given away
 *   after a crash of the machine, or in a restarted container. Only then may
 *   its file be removed.
 * - `unknown`: the process is a PostgreSQL that we may not look into.
 */
export type ServerState = "running" | "gone" | "unknown";

/** Finds out about the process that `postmaster.pid` names. */
export async function inspectServer(server: ServerProcess, directory: string): Promise<ServerState> {
  if (!(await isProcessAlive(server.pid))) return "gone";
  // Started before this boot (one minute of tolerance: both clocks are coarse, and may have been set).
  const bootedAtSeconds = Date.now() / 1000 - uptime();
  if (server.startedAtSeconds > 0 && server.startedAtSeconds < bootedAtSeconds - 60) return "gone";
  const path = await realpath(directory);
  if (process.platform === "linux") {
    try {
      // Any user may read the name, only its own user where it works: its data directory.
      if ((await readFile(`/proc/${server.pid}/comm`, "utf8")).trim() !== "postgres") return "gone";
      return (await readlink(`/proc/${server.pid}/cwd`)) === path ? "running" : "gone";
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      return code === "ENOENT" || code === "ESRCH" ? "gone" : "unknown";
    }
  }
  try {
    const { stdout } = await promisify(execFile)("ps", ["-ww", "-o", "command=", "-p", String(server.pid)]);
    if (!stdout.includes("postgres")) return "gone";
    return stdout.includes(`-D ${directory} `) || stdout.includes(`-D ${path} `) ? "running" : "unknown";
  } catch {
    return "gone"; // `ps` exits with 1 for a process that is not there
  }
}

/** Whether the process that `postmaster.pid` names is that server, for certain. */
export async function isServerAlive(server: ServerProcess, directory: string): Promise<boolean> {
  return (await inspectServer(server, directory)) === "running";
}

/** Whether a process with that id runs. One that ended and was not waited for by its parent does not. */
export async function isProcessAlive(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
  if (process.platform !== "linux") return true;
  try {
    // The name before the state may hold anything, also brackets.
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    return !stat.slice(stat.lastIndexOf(")")).startsWith(") Z");
  } catch {
    return false; // ended meanwhile
  }
}
