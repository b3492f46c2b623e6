import { AppError, type FieldViolation } from "../../../runtime/errors/app-error.ts";
import { graphLimits } from "./graph.ts";

/** Violations that are reported of one graph; what is more is counted only. */
const maxReported = 100;

/** What is wrong with a graph: all of it, so that it is corrected in one go. */
export class Problems {
  readonly #violations: FieldViolation[] = [];
  readonly #fields = new Set<string>();
  #count = 0;

  /** Notes a problem. `field` is its path, for example `steps[3].tool.arguments.url`. */
  add(field: string, message: string, rule: string): void {
    this.#count += 1;
    this.#fields.add(field);
    if (this.#violations.length < maxReported) this.#violations.push({ field, message, rule });
  }

  /** Whether something is wrong at a path itself, so that nothing more can be said of it. */
  has(field: string): boolean {
    return this.#fields.has(field);
  }

  /** @throws AppError INVALID_GRAPH if there are any */
  throwIfFound(): void {
    const first = this.#violations[0];
    if (first === undefined) return;
    const more = this.#count > 1 ? ` (and ${this.#count - 1} more)` : "";
    throw new AppError("INVALID_GRAPH", `${first.field}: ${first.message}${more}`, { violations: this.#violations });
  }
}

/** The failure of a graph that is larger than `graphLimits` allow. */
export function graphTooLarge(field: string, message: string, limit: keyof typeof graphLimits): AppError {
  return new AppError("LIMIT_EXCEEDED", `${field === "" ? "the graph" : field}: ${message}`, {
    violations: [{ field, message, rule: "graph_limit" }],
    metadata: { limit: `graph_${limit}`, value: `${graphLimits[limit]}` },
  });
}

/** The path of a member of an object; what is no plain name is quoted. */
export function memberPath(path: string, key: string): string {
  const shown = key.length > 64 ? `${key.slice(0, 64)}…` : key;
  if (!/^[A-Za-z_][\w-]*$/.test(shown)) return `${path}[${JSON.stringify(shown)}]`;
  return path === "" ? shown : `${path}.${shown}`;
}
