/** An order of steps in which each comes after those that it waits for. */
export interface Order {
  /** The steps by their indexes. Of no use if there are cycles. */
  readonly sequence: readonly number[];
  /** Steps that wait for themselves, from one to the next that waits for it; the first is the last. Some of them, if there are many. */
  readonly cycles: readonly (readonly number[])[];
}

const maxCycles = 10;

/**
 * Orders steps, keeping the order in which they were given as far as it goes.
 * Linear in steps and dependencies, without recursion.
 *
 * @param waitsFor the indexes of the steps that each step waits for
 */
export function orderSteps(waitsFor: readonly (readonly number[])[]): Order {
  const sequence: number[] = [];
  const cycles: (readonly number[])[] = [];
  const state: ("new" | "open" | "done")[] = waitsFor.map(() => "new");
  for (const start of waitsFor.keys()) {
    if (state[start] !== "new") continue;
    state[start] = "open";
    const path = [{ index: start, next: 0 }];
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const before = waitsFor[top.index]?.[top.next];
      if (before === undefined) {
        state[top.index] = "done";
        sequence.push(top.index);
        path.pop();
        continue;
      }
      top.next += 1;
      if (state[before] === "new") {
        state[before] = "open";
        path.push({ index: before, next: 0 });
      } else if (state[before] === "open" && cycles.length < maxCycles) {
        const from = path.findLastIndex(({ index }) => index === before);
        cycles.push([
          before,
          ...path
            .slice(from)
            .map(({ index }) => index)
            .reverse(),
        ]);
      }
    }
  }
  return { sequence, cycles };
}
