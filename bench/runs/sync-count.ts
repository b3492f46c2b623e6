import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { StartedContestant } from "./contestant.ts";
import type { Load } from "./load.ts";
import { processesOf } from "./process-tree.ts";

const runs = 20;
const attachWithinMs = 15_000;
const runWithinMs = 30_000;

/**
 * Counts how often a contestant's processes ask the kernel to write a file to
 * the disk, with strace, while one run after the other goes on. Durable steps
 * need one each, at least.
 *
 * @returns syncs a step; `undefined` if strace is not installed or may not look
 */
export async function countSyncs(
  contestant: StartedContestant,
  load: Load,
  steps: number,
): Promise<number | undefined> {
  const pids = processesOf(contestant.pids());
  const args = ["-f", "-e", "trace=fsync,fdatasync", ...pids.flatMap((pid) => ["-p", `${pid}`])];
  const strace = spawn("strace", args, { stdio: ["ignore", "ignore", "pipe"] });
  const ended = once(strace, "close").catch(() => undefined); // not installed: there was nothing to end
  const attached = new Set<number>();
  let syncs = 0;
  const ready = new Promise<boolean>((resolve) => {
    setTimeout(resolve, attachWithinMs, false).unref();
    void ended.then(() => resolve(false));
    createInterface({ input: strace.stderr }).on("line", (line) => {
      const pid = Number(/^strace: Process (\d+) attached/.exec(line)?.[1]);
      if (pids.includes(pid)) attached.add(pid);
      if (attached.size === pids.length) resolve(true);
      // A call that another thread interrupts is told of twice: when it begins, and when it goes on.
      if (/\b(fsync|fdatasync)\(/.test(line)) syncs += 1;
    });
  });
  try {
    if (!(await ready)) return undefined;
    syncs = 0;
    const { durationsMs } = await load.drive({ atOnce: 1, runs, startWithinMs: runWithinMs });
    return syncs / (durationsMs.length * steps);
  } finally {
    strace.kill("SIGINT");
    await ended;
  }
}
