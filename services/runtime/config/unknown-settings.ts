import type { Environment } from "./settings.ts";

/**
 * One problem for each `CADRE_*` variable that no setting has: a misspelt
 * setting is refused, never silently without effect.
 */
export function findUnknownSettings(environment: Environment, known: Iterable<string>): string[] {
  const names = new Set(known);
  return Object.keys(environment)
    .filter((name) => name.startsWith("CADRE_") && environment[name] !== undefined && !names.has(name))
    .map((name) => {
      const nearest = nearestOf(name, names);
      return `${name} is no setting${nearest === undefined ? "" : `; did you mean ${nearest}?`}`;
    });
}

/** The name with the fewest edits, if that is at most a third of its length. */
function nearestOf(name: string, names: ReadonlySet<string>): string | undefined {
  let nearest: string | undefined;
  let least = Math.floor(name.length / 3) + 1;
  for (const candidate of names) {
    const distance = editDistance(name, candidate);
    if (distance >= least) continue;
    least = distance;
    nearest = candidate;
  }
  return nearest;
}

/** Levenshtein's distance, row by row. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const substituted = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      current.push(Math.min(substituted, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}
