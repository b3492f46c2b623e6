import { existsSync, readFileSync } from "node:fs";

/** How many tests did what. */
export interface TestCounts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** Counts the tests in a report of vitest's JSON reporter; all zero if the run ended before it wrote one. */
export function countTests(report: string): TestCounts {
  if (!existsSync(report)) return { passed: 0, failed: 0, skipped: 0 };
  const result: unknown = JSON.parse(readFileSync(report, "utf8"));
  const number = (name: string): number => Number(Reflect.get(Object(result), name));
  return {
    passed: number("numPassedTests"),
    failed: number("numFailedTests"),
    skipped: number("numPendingTests") + number("numTodoTests"),
  };
}
