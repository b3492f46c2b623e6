import { AppError } from "../../../runtime/errors/app-error.ts";
import { compileExpression, evaluate } from "./expression.ts";
import { kindOf } from "./expression-value.ts";
import { Problems } from "./problems.ts";
import type { Scope } from "./scope.ts";
import type { PlacedReference } from "./template.ts";

/** A compiled condition of an edge. */
export interface Condition {
  readonly source: string;
  /** What it names. A path that stands in `has(…)` is named without its last member. */
  readonly references: readonly PlacedReference[];
  /** Those of them that stand where a bool must stand. */
  readonly bools: readonly PlacedReference[];
  /**
   * Whether it is true. Bounded: neither an expression nor the data that it
   * walks over can hold the process up for more than some 20 ms.
   *
   * @throws AppError EVALUATION_FAILED unless it gives a bool
   */
  holds(scope: Scope): boolean;
}

/**
 * Compiles a condition: CEL (https://cel.dev) over `input`,
 * `steps.<name>.output` and `output`.
 *
 * @throws AppError INVALID_GRAPH if it is none, or cannot give a bool
 */
export function compileCondition(source: string, path: string): Condition {
  const problems = new Problems();
  const condition = readCondition(source, path, problems);
  problems.throwIfFound();
  if (condition === undefined) throw new TypeError("a condition without problems has no form");
  return condition;
}

/** Compiles a condition and notes what is wrong with it. */
export function readCondition(source: string, path: string, problems: Problems): Condition | undefined {
  const expression = compileExpression(source);
  if ("problem" in expression) {
    problems.add(path, expression.problem, "condition");
    return undefined;
  }
  return {
    source,
    references: expression.references.map((reference) => ({ reference, path })),
    bools: expression.bools.map((reference) => ({ reference, path })),
    holds(scope) {
      const result = evaluate(expression, scope);
      if (typeof result === "boolean") return result;
      throw new AppError("EVALUATION_FAILED", `the condition at ${path} gives ${kindOf(result)}, not a bool`);
    },
  };
}
