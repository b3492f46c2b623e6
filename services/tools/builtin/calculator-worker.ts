import { parentPort } from "node:worker_threads";
import { ExpressionError, evaluateExpression } from "./evaluate-expression.ts";

/** What the calculator's thread is asked. */
export interface CalculatorRequest {
  readonly id: number;
  readonly expression: string;
}

/** What it answers. */
export type CalculatorResponse =
  /** The library is loaded; sent once. */
  | { readonly type: "ready" }
  | { readonly id: number; readonly type: "result"; readonly result: string }
  | { readonly id: number; readonly type: "failed"; readonly message: string };

// A thread of its own: the library takes a tenth of a second to load, which must not
// stop everything else, and a thread can be ended if an expression takes too long.
parentPort?.on("message", ({ id, expression }: CalculatorRequest) => {
  parentPort?.postMessage(answer(id, expression));
});
parentPort?.postMessage({ type: "ready" } satisfies CalculatorResponse);

function answer(id: number, expression: string): CalculatorResponse {
  try {
    return { id, type: "result", result: evaluateExpression(expression) };
  } catch (error) {
    if (!(error instanceof ExpressionError)) throw error;
    return { id, type: "failed", message: error.message };
  }
}
