import { totalmem } from "node:os";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { Logger } from "../../services/runtime/log/log.ts";

/** How long after the start, in milliseconds: whoever waits for the server makes the first calls before that. */
const afterMs = 5_000;

/** Half of the young generation, in MiB; V8's own bound is 16. */
const semiSpaceMib = 64;
/** With less memory than this V8's own bound stays, in bytes. */
const enoughMemory = 1024 ** 3;

/**
 * Lets the young generation grow under load: what calls and steps leave behind is garbage a moment later, and is
 * collected a quarter as often. It took a fifth off the processor's time of a step, and 32 MiB did not; at rest it
 * takes no memory.
 */
export function letYoungGenerationGrow(): void {
  // 0 where nothing bounds the process.
  const memory = Math.min(process.constrainedMemory() || Number.POSITIVE_INFINITY, totalmem());
  if (memory >= enoughMemory) setFlagsFromString(`--max-semi-space-size=${semiSpaceMib}`);
}

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
