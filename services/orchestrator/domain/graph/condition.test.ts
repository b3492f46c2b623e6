import { evaluate as evaluateByLibrary } from "@marcbachmann/cel-js";
import fc from "fast-check";
import { expect, test } from "vitest";
import { AppError } from "../../../runtime/errors/app-error.ts";
import type { Json } from "../json.ts";
import { compileCondition } from "./condition.ts";
import { compileExpression, evaluate } from "./expression.ts";
import type { Scope } from "./scope.ts";

const input: Json = {
  name: "Ada",
  count: 3,
  ratio: 0.5,
  tags: ["a", "b"],
  none: null,
  nested: { deep: [{ id: "x" }] },
};
const scope: Scope = {
  input,
  output: (step) => (step === "fetch" ? { items: [1, 2, 3], ok: true } : null),
  own: { approved: true, by: "usr_1", constructor: 1, "a b": 2 },
};

function holds(source: string, of: Scope = scope): boolean {
  return compileCondition(source, "steps[0].after[0].when").holds(of);
}

function failure(attempt: () => unknown): AppError {
  try {
    attempt();
  } catch (thrown) {
    if (thrown instanceof AppError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}

test.each([
  "output.approved",
  "output.approved && output.by == 'usr_1'",
  "!output.approved || input.count > 2",
  "input.count == 3 && input.count != 3.5 && 3 == input.count",
  "input.count + 1 == 4 && input.count % 2 == 1 && -input.count < 0",
  "7 / 2 == 3 && 7.0 / 2.0 == 3.5 && input.ratio * 2 == 1.0",
  "input.none == null && has(input.none) && !has(input.missing)",
  "steps.fetch.output.items[1] == 2 && size(steps.fetch.output.items) == 3 && steps.fetch.output.items.size() == 3",
  "steps.skipped.output == null",
  "'a' in input.tags && !('c' in input.tags) && 'name' in input",
  "input.tags.all(t, t.matches('^[ab]$')) && input.tags.exists(t, t == 'b') && input.tags.exists_one(t, t == 'a')",
  "input.tags.map(t, t + '!') == ['a!', 'b!'] && input.tags.filter(t, t > 'a') == ['b']",
  "input.nested.deep.map(d, d.id == 'x', d.id) == ['x']",
  "input.nested == {'deep': [{'id': 'x'}]}",
  "input.name.startsWith('A') && input.name.endsWith('a') && input.name.contains('d')",
  "string(input.count) == '3' && int('42') == 42 && double('1.5') == 1.5 && int(2.9) == 2",
  "input['name'] == 'Ada' && output['a b'] == 2",
  "output.constructor == 1",
  "input.count > 2 ? output.approved : false",
  "input.missing == 1 || true",
  "!(input.missing == 1 && false)",
  "[input.missing == 1, true].exists(x, x) || true",
  "input.tags.exists(t, t.nope || t == 'b') || input.tags.exists(t, t == 'a')",
  "input.tags.all(t, input.tags.exists(u, u == t))",
  "size('añ😀') == 3",
])("%s holds", (source) => {
  expect(holds(source)).toBe(true);
});

test.each([
  ["input.missing", "input.missing has no value"],
  ["input.name", "gives a text, not a bool"],
  ["input.tags[7] == 'x'", "input.tags[7] has no value"],
  ["input.__proto__ == null", "input.__proto__ has no value"],
  ["input.toString == null", "input.toString has no value"],
  ["7 / (2 - size(input.tags)) == 1", "a division by zero"],
  ["9223372036854775807 + input.tags.size() > 0", "does not fit into 64 bits"],
  ["input.name < input.count", "a text and a number have no order"],
  ["input.ratio % 2 == 1", "not whole"],
  ["input.name.all(c, true)", "a text is where a list should be"],
  ["input.tags.map(t, t.id) == []", "a text has no members"],
  ["steps.skipped.output.id == 1", "steps.skipped.output.id has no value"],
  ["input.name && true", "a text is where a bool should be"],
])("%s has no value on these data", (source, message) => {
  const error = failure(() => holds(source));
  expect(error).toMatchObject({ reason: "EVALUATION_FAILED", message: expect.stringContaining(message) });
});

test.each([
  ["foo > 1", "Unknown variable: foo"],
  ["item.ok", "Unknown variable: item"],
  ["1 + 1", "gives int, and must give a bool"],
  ["'yes'", "gives string"],
  ["1 + 'a' == 2", "no such overload"],
  ["fetch(1)", "no matching overload for 'fetch(int)'"],
  ["steps.fetch.items == 1", "names steps, but not as steps.<name>.output"],
  ["steps['fetch'] == 1", "names steps"],
  ["has(steps.fetch)", "names steps, but not"],
  ["has(steps.fetch.output)", "names steps"],
  ["input.all(steps, true)", "whose name is taken"],
  ["input.all(x, x.all(x, true))", "whose name is taken"],
  ["output.a ==", "Unexpected"],
  ["output.name.matches('(a|b')", "not a valid regular expression"],
  ["output.name.matches('(?=a)')", "linear time"],
  ["output.b == b'x'", "bytes"],
  ["timestamp(output.at) == timestamp(output.at)", "conditions do not know"],
  ["type(1) == int", "conditions do not know"],
  ["cel.bind(a, 1, a == 1)", "conditions do not know"],
  [`${"(".repeat(100)}true${")".repeat(100)}`, "maxDepth"],
  [`true${" || true".repeat(300)}`, "is longer than"],
  [`${"[".repeat(1_000)}`, "maxDepth"],
])("%s is refused", (source, message) => {
  const error = failure(() => compileCondition(source, "steps[1].after[0].when"));
  expect(error.reason).toBe("INVALID_GRAPH");
  expect(error.violations).toEqual([
    { field: "steps[1].after[0].when", message: expect.stringContaining(message), rule: "condition" },
  ]);
});

test.each([
  ["nested loops", "input.all(a, input.all(b, input.all(c, true)))", Array.from({ length: 1_000 }, () => 0)],
  ["a doubling text", `size(input.map(x, ${"x + x + ".repeat(5)}x)${".map(x, x + x)".repeat(25)}) < 0`, ["ab"]],
  ["a doubling list", `size(input.map(x, [x])${".map(x, x + x)".repeat(25)}) < 0`, ["ab"]],
  ["a slow pattern", "input.all(x, x.matches('(a*)*b'))", ["a".repeat(100_000)]],
  ["patterns from the data", "input.all(x, 'a'.matches(x) || true)", Array.from({ length: 1_000 }, () => "a{1,200}")],
  ["a slow search", "input.all(x, x.contains(input[0] + 'b') || true)", ["a".repeat(20_000), "a".repeat(500_000)]],
  [
    "comparisons of large objects",
    "input[0].all(x, input[1] == input[2])",
    [
      Array.from({ length: 10_000 }, () => 0),
      ...[1, 2].map(() => Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`k${i}`, i]))),
    ],
  ],
  [
    "failures that are swallowed",
    "input.all(a, input.all(b, b.c || true) || true)",
    Array.from({ length: 2_000 }, () => 0),
  ],
] satisfies [string, string, Json][])("%s ends soon", (_, source, data) => {
  const error = failure(() => holds(source, { input: data, output: () => null }));
  expect(error).toMatchObject({ reason: "EVALUATION_FAILED", message: expect.stringContaining("takes too long") });
});

test("what a condition names is known without the members that has() asks for", () => {
  const { references, bools } = compileCondition(
    "has(output.a.b) && steps.fetch.output.ok && input.list[0]['x y'].all(i, i.z == input.count)",
    "when",
  );
  expect(references.map(({ reference }) => reference.source)).toEqual([
    "output.a",
    "steps.fetch.output.ok",
    "input.list[0]['x y']",
    "input.count",
  ]);
  expect(references[2]?.reference.path).toEqual(["list", 0, "x y"]);
  expect(bools.map(({ reference }) => reference.source)).toEqual(["steps.fetch.output.ok"]);
});

const number = fc.constantFrom("1", "2", "0", "2.5", "input.count", "input.ratio", "size(input.tags)", "-3");
const text = fc.constantFrom("'a'", "''", "input.name", "input.tags[0]", "input.missing", "string(1)");
const { bool } = fc.letrec<{ bool: string }>((tie) => {
  const inner = tie("bool");
  const operator = fc.constantFrom("<", "<=", ">", ">=", "==", "!=");
  return {
    bool: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      fc.constantFrom("true", "false", "has(input.name)", "has(input.missing)", "input.none == null"),
      fc.tuple(number, operator, number).map((parts) => parts.join(" ")),
      fc.tuple(text, operator, text).map((parts) => parts.join(" ")),
      fc.tuple(text, fc.constantFrom("contains", "startsWith", "endsWith"), text).map(([a, f, b]) => `${a}.${f}(${b})`),
      text.map((value) => `${value} in input.tags`),
      fc
        .tuple(fc.constantFrom("all", "exists", "exists_one"), text, operator)
        .map(([f, value, op]) => `input.tags.${f}(t, t ${op} ${value})`),
      fc.tuple(inner, fc.constantFrom("&&", "||", "==", "!="), inner).map(([a, op, b]) => `(${a}) ${op} (${b})`),
      fc.tuple(inner, inner, inner).map(([a, b, c]) => `(${a}) ? (${b}) : (${c})`),
      inner.map((value) => `!(${value})`),
    ),
  };
});

test("where the library gives a value, it is the same", () => {
  let compared = 0;
  fc.assert(
    fc.property(bool, (source) => {
      const compiled = compileExpression(source);
      if ("problem" in compiled) throw new Error(`${source}: ${compiled.problem}`);
      let theirs: unknown;
      try {
        theirs = evaluateByLibrary(source, { input });
      } catch {
        // The library has no overloads of % and the like for a double and an integer; ours may have a value.
        return;
      }
      compared += 1;
      expect(evaluate(compiled, scope)).toBe(theirs);
    }),
    { numRuns: 2_000 },
  );
  expect(compared).toBeGreaterThan(500);
});
