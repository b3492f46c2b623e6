import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { childrenOf } from "./process-tree.ts";

/** What the machine's processors have done since some time ago, in seconds of one processor. */
interface ProcessorTime {
  readonly all: number;
  /** Of it this process and its descendants, with those that have ended. */
  readonly own: number;
}

/** Linux counts in hundredths of a second wherever it tells programs (USER_HZ). */
const ticksPerSecond = 100;

/**
 * Begins to measure a time on a machine that others use, too.
 *
 * @returns how many milliseconds it is now since the call, without those that
 * processors spent on what neither this process nor a descendant of it is: how
 * long the same takes on a machine of its own
 */
export function ownTime(): () => number {
  const startedMs = performance.now();
  const before = readProcessorTime();
  return () => {
    const { all, own } = readProcessorTime();
    const othersSeconds = Math.max(0, all - before.all - (own - before.own));
    return performance.now() - startedMs - (othersSeconds / availableParallelism()) * 1_000;
  };
}

function readProcessorTime(): ProcessorTime {
  const [total = ""] = readFileSync("/proc/stat", "utf8").split("\n");
  // Columns by proc(5): user, nice, system, idle, iowait, irq, softirq, steal.
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = total.split(/\s+/).slice(1).map(Number);
  return {
    all: (user + nice + system + irq + softirq + steal) / ticksPerSecond,
    own: ticksOf(process.pid) / ticksPerSecond,
  };
}

/** Of a process, the children that it has waited for, and its living descendants. */
function ticksOf(pid: number): number {
  let own = 0;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name before the state may hold anything, also brackets; utime is the twelfth field behind it.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    own = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  } catch (error) {
    // It ended while it was looked at: its parent has it.
    if (!["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
  }
  return childrenOf(pid).reduce((sum, child) => sum + ticksOf(child.pid), own);
}
