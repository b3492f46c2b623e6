import { Worker } from "node:worker_threads";
import { afterAll, describe, expect, test, vi } from "vitest";
import { createCalculator } from "./calculator.ts";
import { ExpressionError, evaluateExpression } from "./evaluate-expression.ts";

describe("evaluates", () => {
  const cases: [string, string][] = [
    ["1 + 2 * 3", "7"],
    ["0.1 + 0.2", "0.3"],
    ["(1 + 0.07)^10 * 2500", "4917.878393223913306225"],
    ["2^100", "1267650600228229401496703205376"],
    ["-7 % 3", "2"],
    ["5!", "120"],
    ["30!", "265252859812191058636308480000000"],
    ["sqrt(2)^2", "2"],
    ["1/3", "0.33333333333333333333333333333333"],
    ["2 pi", "6.2831853071795864769252867665590"],
    ["round(2.345, 2)", "2.35"],
    ["max(1, 2, 3) - min(4, 5)", "-1"],
    ["log(8, 2)", "3"],
    ["cos(pi)", "-1"],
    ["1e-40", "1e-40"],
    ["10^70 + 1", "1e+70"],
    ["0 * -1", "0"],
  ];
  test.each(cases)("%s = %s", (expression, value) => {
    expect(evaluateExpression(expression)).toBe(value.replace(/(\.\d*?)0+$/, "$1"));
  });
});

describe("refuses", () => {
  test.each([
    "",
    "1 +",
    "1 / 0",
    "0 / 0",
    "sqrt(-1)",
    "log(0)",
    "x = 1",
    "f(x) = x",
    "x",
    "1; 2",
    "[1, 2]",
    "1:1e9",
    '"a"',
    "{a: 1}",
    "true ? 1 : 2",
    "1 == 1",
    "not true",
    "5 cm",
    "2 i",
    "import({})",
    "config({})",
    "createUnit(1)",
    "evaluate(1)",
    "parse(1)",
    "simplify(1)",
    "derivative(1, 1)",
    "random()",
    "constructor(1)",
    "toString()",
    "hasOwnProperty(1)",
    "__proto__",
    "cos.constructor(1)",
    "cos.constructor",
    "(1)(2)(3) (",
    "9^9^9^9",
    "1e6000",
    "10^5000 * 10",
    "1001!",
    "exp(1e9)",
    "sin(1e31)",
    "round(1, 2, 3)",
    "zeros(1000, 1000)",
    "0.5 && 1",
    "1 | 2",
    "1 << 2000000000",
    "combinations(1e9, 5e8)",
  ])("%s", (expression) => {
    expect(() => evaluateExpression(expression)).toThrow(ExpressionError);
  });
});

test("the slowest expressions of the longest kind are done in a second", () => {
  const repeat = (part: string): string => part.repeat(Math.floor(1_000 / part.length)).slice(0, -1);
  for (const expression of [
    repeat("1000!+"),
    repeat("sin(9e29)+"),
    repeat("log(9e4999)+"),
    repeat("1.1^9999.9+"),
    repeat("9e4999%7+"),
    repeat("tan(1.5)*"),
    repeat("9e-4999%7e-5000+"),
    repeat("exp(9999)+"),
    `${"(".repeat(499)}1${")".repeat(499)}`,
    "-".repeat(999).concat("1"),
  ]) {
    const before = process.cpuUsage();
    try {
      evaluateExpression(expression);
    } catch (error) {
      if (!(error instanceof ExpressionError)) throw error;
    }
    expect(process.cpuUsage(before).user / 1_000, expression.slice(0, 20)).toBeLessThan(2_000);
  }
});

describe("the tool", () => {
  const calculator = createCalculator();
  afterAll(() => calculator.close());
  const call = (signal: AbortSignal) => ({ orgId: "org", requestId: "req", signal });

  test("computes many at once, each for itself", async () => {
    const { signal } = new AbortController();
    const results = await Promise.all(
      Array.from({ length: 50 }, async (_, n) => calculator.run({ expression: `${n} * 2` }, call(signal))),
    );
    expect(results).toEqual(Array.from({ length: 50 }, (_, n) => ({ result: `${n * 2}` })));
  });

  test("says what is wrong with an expression", async () => {
    const failed = calculator.run({ expression: "1 +* 2" }, call(new AbortController().signal));
    await expect(failed).rejects.toMatchObject({ reason: "TOOL_FAILED", message: expect.stringContaining("char 4") });
  });

  test("ends for the caller when it is cancelled, and for nobody else", async () => {
    const controller = new AbortController();
    const cancelled = calculator.run({ expression: "1" }, call(controller.signal));
    const other = calculator.run({ expression: "2" }, call(new AbortController().signal));
    controller.abort();
    await expect(cancelled).rejects.toMatchObject({ reason: "CANCELLED" });
    await expect(other).resolves.toEqual({ result: "2" });
  });

  /** A call whose time is over before anything can answer it. */
  async function late(from: ReturnType<typeof createCalculator>): Promise<unknown> {
    const controller = new AbortController();
    const run = Promise.resolve(from.run({ expression: "1000!" }, call(controller.signal)));
    controller.abort(new DOMException("late", "TimeoutError"));
    return run.catch((error: unknown) => error);
  }

  test("starts another thread after one was stuck, and not while the first one loads", async () => {
    const terminate = vi.spyOn(Worker.prototype, "terminate");
    const fresh = createCalculator();
    const { signal } = new AbortController();
    try {
      expect(await late(fresh)).toMatchObject({ reason: "TOOL_FAILED" });
      expect(terminate).not.toHaveBeenCalled();
      await expect(fresh.run({ expression: "2" }, call(signal))).resolves.toEqual({ result: "2" });
      expect(await late(fresh)).toMatchObject({ reason: "TOOL_FAILED" });
      expect(terminate).toHaveBeenCalledTimes(1);
      await expect(fresh.run({ expression: "3" }, call(signal))).resolves.toEqual({ result: "3" });
    } finally {
      await fresh.close();
      terminate.mockRestore();
    }
  }, 60_000);
});
