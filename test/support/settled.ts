import { setTimeout as pause } from "node:timers/promises";

const maxMs = 30_000;

/** The value that a figure has when it has not changed for 200 ms. Fails after half a minute of change. */
export async function settled(figure: () => number): Promise<number> {
  let last = figure();
  let unchangedSince = performance.now();
  const startedAt = unchangedSince;
  while (performance.now() - unchangedSince < 200) {
    await pause(10);
    if (figure() === last) continue;
    last = figure();
    unchangedSince = performance.now();
    if (unchangedSince - startedAt > maxMs) throw new Error("the figure does not settle");
  }
  return last;
}

/** Waits until a condition holds. Fails after half a minute. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const startedAt = performance.now();
  while (!(await condition())) {
    if (performance.now() - startedAt > maxMs) throw new Error("the condition does not come true");
    await pause(10);
  }
}
