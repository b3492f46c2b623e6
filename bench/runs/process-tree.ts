import { readdirSync, readFileSync } from "node:fs";

// What processes take, as Linux counts it. The time of a process that ended is
// counted by the parent that waited for it, so the sum of a tree never goes back.

/** Linux has counted in hundredths of a second since 2.6, whatever its own tick is. */
const ticksPerSecond = 100;

interface ProcessEntry {
  readonly pid: number;
  readonly parent: number;
  readonly cpuTicks: number;
}

/** The ids of processes and of all that descend from them. @throws Error if one of `roots` does not run */
export function processesOf(roots: readonly number[]): readonly number[] {
  return treeOf(roots).map(({ pid }) => pid);
}

/**
 * Seconds of the processor, user and system, that processes and all that descend
 * from them took since they began.
 *
 * @throws Error if one of `roots` does not run
 */
export function cpuSecondsOf(roots: readonly number[]): number {
  return treeOf(roots).reduce((sum, { cpuTicks }) => sum + cpuTicks, 0) / ticksPerSecond;
}

/**
 * Bytes of memory of processes and all that descend from them: what is theirs
 * alone, and their shares of what several map, so that PostgreSQL's shared
 * buffers count once. Takes milliseconds a process.
 *
 * @throws Error if one of `roots` does not run
 */
export function memoryOf(roots: readonly number[]): number {
  return treeOf(roots).reduce(
    (sum, { pid }) => sum + 1_024 * Number(/^Pss: +(\d+) kB$/m.exec(readProcess(pid, "smaps_rollup"))?.[1] ?? 0),
    0,
  );
}

function treeOf(roots: readonly number[]): readonly ProcessEntry[] {
  const entries = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => readEntry(Number(name)) ?? []);
  const tree = entries.filter(({ pid }) => roots.includes(pid));
  if (tree.length < new Set(roots).size) throw new Error(`of the processes ${roots.join(", ")} not all run`);
  const pids = new Set(roots);
  for (let known = 0; known < pids.size; ) {
    known = pids.size;
    for (const entry of entries) {
      if (!pids.has(entry.parent) || pids.has(entry.pid)) continue;
      pids.add(entry.pid);
      tree.push(entry);
    }
  }
  return tree;
}

/** proc_pid_stat(5): the name in parentheses may hold anything; state is the first field behind it. */
function readEntry(pid: number): ProcessEntry | undefined {
  const text = readProcess(pid, "stat");
  if (text === "") return undefined;
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  // utime, stime, cutime, cstime
  const cpuTicks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  return { pid, parent: Number(fields[1]), cpuTicks };
}

/** A file of /proc; empty for a process that has ended. */
function readProcess(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESRCH") return "";
    throw error;
  }
}
