import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { Logger } from "../../services/runtime/log/log.ts";

/** How long after the start, in milliseconds: whoever waits for the server makes the first calls before that. */
const afterMs = 5_000;

type Collect = (options: { type: "major"; execution: "sync"; flavor: "last-resort" }) => void;

/**
 * Gives back, once, the memory that starting took. V8 keeps the young
 * generation as large as loading hundreds of modules made it, a third of a
 * server at rest; it grows again when there is work. Takes about 0.1 s.
 */
export function giveBackStartMemory(log: Logger): void {
  const timer = setTimeout(() => {
    const before = process.memoryUsage.rss();
    const startedMs = performance.now();
    // V8 shrinks the young generation on its last resort only, and Node.js has no call of its own for it.
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as Collect;
    collect({ type: "major", execution: "sync", flavor: "last-resort" });
    const tookMs = Math.round(performance.now() - startedMs);
    log.debug({ tookMs, before, after: process.memoryUsage.rss() }, "the memory that starting took was given back");
  }, afterMs);
  timer.unref();
}
