import { readdir, readFile, readlink } from "node:fs/promises";

/** The process that holds a port. */
export interface PortHolder {
  readonly pid: number;
  /** Its command line, at most 200 characters. */
  readonly command: string;
}

/**
 * The port that was to be listened on is taken. Tells who has it where the
 * system says so: on Linux, for processes that this user may look into.
 */
export class PortInUseError extends Error {
  override readonly name = "PortInUseError";
  readonly port: number;
  readonly holder: PortHolder | undefined;

  constructor(host: string, port: number, holder: PortHolder | undefined, cause: unknown) {
    const who = holder === undefined ? "another process" : `process ${holder.pid} (${holder.command})`;
    super(`port ${port} on ${host} is in use by ${who}`, { cause });
    this.port = port;
    this.holder = holder;
  }
}

/** Finds who listens on a TCP port; `undefined` where that cannot be known. */
export async function findPortHolder(port: number): Promise<PortHolder | undefined> {
  const inodes = await listeningInodes(port);
  if (inodes.size === 0) return undefined;
  for (const pid of await numericEntries("/proc")) {
    for (const descriptor of await numericEntries(`/proc/${pid}/fd`)) {
      const target = await readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => "");
      const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1];
      if (inode === undefined || !inodes.has(inode)) continue;
      const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      return { pid: Number(pid), command: line.split("\0").join(" ").trim().slice(0, 200) || "unknown" };
    }
  }
  return undefined;
}

/** The inodes of sockets in state LISTEN (0A) on a port, as proc(5) describes the tables. */
async function listeningInodes(port: number): Promise<Set<string>> {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const inodes = new Set<string>();
  for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    const text = await readFile(table, "utf8").catch(() => "");
    for (const line of text.split("\n").slice(1)) {
      const columns = line.trim().split(/\s+/);
      const inode = columns[9];
      if (columns[1]?.endsWith(suffix) === true && columns[3] === "0A" && inode !== undefined) inodes.add(inode);
    }
  }
  return inodes;
}

async function numericEntries(directory: string): Promise<string[]> {
  const entries = await readdir(directory).catch(() => []);
  return entries.filter((entry) => /^\d+$/.test(entry));
}
