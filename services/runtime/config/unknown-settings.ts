import { nearestName } from "./nearest-name.ts";
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
      const nearest = nearestName(name, names);
      return `${name} is no setting${nearest === undefined ? "" : `; did you mean ${nearest}?`}`;
    });
}
