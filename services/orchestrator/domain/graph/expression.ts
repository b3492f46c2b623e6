/**
 * Expressions in CEL, the Common Expression Language, over JSON.
 *
 * A library parses and type-checks. It does not evaluate, because an expression
 * of a stranger over data of a stranger must end soon: nested `all` over a list
 * of 1,000 elements is a billion steps. Here each step is paid for out of a
 * budget. What is not taken over from CEL: bytes, unsigned integers, times,
 * durations, and types as values.
 *
 * Numbers of JSON are doubles; literals such as `1` are integers of 64 bits.
 * Where CEL has no overload for a double and an integer, the integer becomes a
 * double, so that `output.count + 1` works.
 */
import { type ASTNode, Environment } from "@marcbachmann/cel-js";
import { AppError } from "../../../runtime/errors/app-error.ts";
import {
  compilePattern,
  type LinearPattern,
  PatternBudgetError,
  PatternError,
} from "../../../runtime/json-schema/linear-pattern.ts";
import {
  type Budget,
  BudgetError,
  type CelValue,
  elementsOf,
  Failure,
  functions,
  memberOfValue,
  negate,
  operators,
  size,
  spend,
  textTests,
  toBool,
  toText,
} from "./expression-value.ts";
import { lookUp, type Reference } from "./reference.ts";
import type { Scope } from "./scope.ts";

/** A compiled expression. */
export interface Expression {
  readonly run: Evaluate;
  readonly references: readonly Reference[];
  /** Those that stand where a bool must stand. */
  readonly bools: readonly Reference[];
}

type Evaluate = (frame: Frame) => CelValue;

/** What one evaluation works with. */
interface Frame {
  readonly scope: Scope;
  /** The variables of the comprehensions that are under way, outermost first. */
  readonly locals: CelValue[];
  readonly budget: Budget;
}

const maxLength = 2_048;
/** Of one evaluation; some 50 ns each. */
const maxSteps = 300_000;
const maxPatternLength = 256;

const environment = createEnvironment();

/** What the library knows of variables and operators when it checks types. */
function createEnvironment(): Environment {
  const created = new Environment({
    homogeneousAggregateLiterals: false,
    limits: { maxAstNodes: 1_024, maxDepth: 32, maxCallArguments: 4, maxListElements: 256, maxMapEntries: 64 },
  });
  for (const variable of ["input", "steps", "output"]) created.registerVariable(variable, "dyn");
  const neverCalled = () => {
    throw new TypeError("the library is not asked to evaluate");
  };
  for (const operator of ["+", "-", "*", "/", "%"]) {
    created.registerOperator(`double ${operator} int: double`, neverCalled);
    created.registerOperator(`int ${operator} double: double`, neverCalled);
  }
  // Its reverse and its negation come with it.
  created.registerOperator("double == int", neverCalled);
  return created;
}

/** Compiles an expression whose value can be a bool, or says why it is none. */
export function compileExpression(source: string): Expression | { readonly problem: string } {
  if (source.length > maxLength) return { problem: `is longer than ${maxLength} characters` };
  try {
    const parsed = environment.parse(source);
    const { valid, type = "dyn", error } = parsed.check();
    if (!valid) return { problem: describe(error) };
    if (type !== "bool" && type !== "dyn") return { problem: `gives ${type}, and must give a bool` };
    const compiler = new Compiler();
    const run = compiler.compileBool(parsed.ast);
    return { run, references: compiler.references, bools: compiler.bools };
  } catch (thrown) {
    if (thrown instanceof Unsupported) return { problem: thrown.message };
    if (thrown instanceof PatternError) return { problem: `has a pattern that ${thrown.message}` };
    // The parser's own errors have a summary; anything else is a bug.
    if (thrown instanceof Error && "summary" in thrown) return { problem: describe(thrown) };
    throw thrown;
  }
}

/**
 * Evaluates an expression.
 *
 * @throws AppError EVALUATION_FAILED if it has no value on these data, or takes too long
 */
export function evaluate({ run }: Expression, scope: Scope): CelValue {
  try {
    return run({ scope, locals: [], budget: { steps: maxSteps } });
  } catch (thrown) {
    if (thrown instanceof Failure || thrown instanceof BudgetError) {
      throw new AppError("EVALUATION_FAILED", thrown.message, { cause: thrown });
    }
    throw thrown;
  }
}

/** Something of CEL that is not taken over, or a misuse of a variable. */
class Unsupported extends Error {
  override readonly name = "Unsupported";
}

function describe(error: unknown): string {
  const { summary, message, range } = error as { summary?: string; message?: string; range?: { start: number } };
  const text = summary ?? message?.split("\n")[0] ?? "is no CEL expression";
  const hint = text.startsWith("Unknown variable") ? "; there are input, steps.<name>.output and output" : "";
  return `${text}${hint}${range === undefined ? "" : ` (character ${range.start + 1})`}`;
}

/** Turns the syntax tree into functions. Recursion is bounded by the parser's limits on nodes. */
class Compiler {
  readonly references: Reference[] = [];
  readonly bools: Reference[] = [];
  readonly #locals: string[] = [];

  /** Compiles what must give a bool. */
  compileBool(node: ASTNode): Evaluate {
    const reference = this.#reference(node);
    if (reference !== undefined) this.bools.push(reference);
    return this.compile(node);
  }

  compile(node: ASTNode): Evaluate {
    const run = this.#compile(node);
    return (frame) => {
      spend(frame.budget, 1);
      return run(frame);
    };
  }

  #compile(node: ASTNode): Evaluate {
    switch (node.op) {
      case "value": {
        const { args } = node;
        if (args instanceof Uint8Array || (typeof args === "object" && args !== null)) {
          throw new Unsupported("has bytes, an unsigned integer, a time or a duration, which conditions do not know");
        }
        return () => args;
      }
      case "id":
      case ".":
      case "[]": {
        const reference = this.#reference(node);
        if (reference !== undefined) {
          this.references.push(reference);
          return ({ scope }) => present(lookUp(reference, scope), reference.source);
        }
        if (node.op === "id") return this.#local(node.args);
        const of = this.compile(node.args[0]);
        if (node.op === ".") {
          const name = node.args[1];
          return (frame) => present(memberOfValue(of(frame), name), `.${name}`);
        }
        const key = this.compile(node.args[1]);
        return (frame) => present(memberOfValue(of(frame), key(frame)), "[…]");
      }
      case "call":
        return this.#call(node.args[0], node.args[1]);
      case "rcall":
        return this.#method(node.args[0], node.args[1], node.args[2]);
      case "list": {
        const items = node.args.map((item) => this.compile(item));
        return (frame) => items.map((item) => item(frame));
      }
      case "map": {
        const entries = node.args.map(([key, value]) => {
          if (key.op !== "value" || typeof key.args !== "string") {
            throw new Unsupported("has an object whose keys are no literal texts");
          }
          return [key.args, this.compile(value)] as const;
        });
        return (frame) => Object.fromEntries(entries.map(([key, value]) => [key, value(frame)]));
      }
      case "?:": {
        const condition = this.compileBool(node.args[0]);
        const yes = this.compile(node.args[1]);
        const no = this.compile(node.args[2]);
        return (frame) => (toBool(condition(frame)) ? yes(frame) : no(frame));
      }
      case "&&":
        return this.#logic(node.args, false);
      case "||":
        return this.#logic(node.args, true);
      case "!_": {
        const of = this.compileBool(node.args);
        return (frame) => !toBool(of(frame));
      }
      case "-_": {
        const of = this.compile(node.args);
        return (frame) => negate(of(frame));
      }
      case "==":
      case "!=":
      case "in":
      case "<":
      case "<=":
      case ">":
      case ">=":
      case "+":
      case "-":
      case "*":
      case "/":
      case "%": {
        const left = this.compile(node.args[0]);
        const right = this.compile(node.args[1]);
        const operate = operators[node.op];
        return (frame) => operate(left(frame), right(frame), frame.budget);
      }
      case ".?":
      case "[?]":
        throw new Unsupported("has an optional, which conditions do not know");
    }
  }

  /** What a path of members of `input`, `output` or `steps` names; undefined for any other node. */
  #reference(node: ASTNode): Reference | undefined {
    const path: (string | number)[] = [];
    let at = node;
    while (at.op === "." || at.op === "[]") {
      const key = at.op === "." ? at.args[1] : literalKey(at.args[1]);
      // What is left of a computed key is compiled by itself, and is the reference.
      if (key === undefined) return undefined;
      path.unshift(key);
      at = at.args[0];
    }
    if (at.op !== "id" || this.#locals.includes(at.args)) return undefined;
    const source = node.input.slice(node.range.start, node.range.end);
    if (at.args === "input" || at.args === "output") return { root: at.args, step: "", path, source };
    if (at.args !== "steps") return undefined;
    const [step, output, ...rest] = path;
    if (typeof step !== "string" || output !== "output") {
      throw new Unsupported("names steps, but not as steps.<name>.output");
    }
    return { root: "steps", step, path: rest, source };
  }

  #local(name: string): Evaluate {
    const slot = this.#locals.lastIndexOf(name);
    if (slot === -1) throw new Unsupported(`has ${name}, which is no value that conditions know`);
    return ({ locals }) => locals[slot] ?? null;
  }

  #call(name: string, args: readonly ASTNode[]): Evaluate {
    const [first] = args;
    if (first === undefined || args.length !== 1) throw new Unsupported(`calls ${name}, which conditions do not know`);
    if (name === "has") {
      if (first.op !== ".") throw new Unsupported("has a has(…) without a member");
      const of = this.compile(first.args[0]);
      const member = first.args[1];
      return (frame) => memberOfValue(of(frame), member) !== undefined;
    }
    const convert = functions.get(name);
    if (convert === undefined) throw new Unsupported(`calls ${name}(), which conditions do not know`);
    const of = this.compile(first);
    return (frame) => convert(of(frame), frame.budget);
  }

  #method(name: string, receiver: ASTNode, args: readonly ASTNode[]): Evaluate {
    if (comprehensions.has(name)) return this.#comprehension(name, receiver, args);
    if (name !== "size" && name !== "matches" && !textTests.has(name)) {
      throw new Unsupported(`calls .${name}(), which conditions do not know`);
    }
    const of = this.compile(receiver);
    const [first] = args;
    if (name === "size" && first === undefined) return (frame) => size(of(frame), frame.budget);
    const test = textTests.get(name);
    if (first === undefined) throw new Unsupported(`calls .${name}() without an argument`);
    if (test === undefined) return this.#matches(of, first);
    const part = this.compile(first);
    return (frame) => {
      const text = toText(of(frame));
      return test(text, toText(part(frame)), frame.budget);
    };
  }

  #matches(of: Evaluate, pattern: ASTNode): Evaluate {
    const known = pattern.op === "value" && typeof pattern.args === "string" ? readPattern(pattern.args) : undefined;
    const source = known === undefined ? this.compile(pattern) : undefined;
    return (frame) => {
      const text = toText(of(frame));
      const compiled = known ?? readDynamicPattern(toText(source?.(frame) ?? null), frame.budget);
      try {
        return compiled.test(text, frame.budget);
      } catch (thrown) {
        if (thrown instanceof PatternBudgetError) throw new BudgetError();
        throw thrown;
      }
    };
  }

  #comprehension(name: string, receiver: ASTNode, args: readonly ASTNode[]): Evaluate {
    const over = this.compile(receiver);
    const [variable, ...parts] = args;
    if (variable?.op !== "id") throw new Unsupported(`has .${name}() without a variable`);
    if (["input", "output", "steps"].includes(variable.args) || this.#locals.includes(variable.args)) {
      throw new Unsupported(`has a variable ${variable.args}, whose name is taken`);
    }
    const slot = this.#locals.push(variable.args) - 1;
    const bodies = parts.map((part) => this.compile(part));
    this.#locals.pop();
    const [first, second] = bodies;
    if (first === undefined) throw new Unsupported(`has .${name}() without an expression`);
    const elements = (frame: Frame) => {
      const list = elementsOf(over(frame));
      spend(frame.budget, list.length);
      return list;
    };
    const at = (frame: Frame, element: CelValue, body: Evaluate) => {
      frame.locals[slot] = element;
      return body(frame);
    };
    switch (name) {
      case "all":
        return (frame) =>
          !isFound(elements(frame), false, frame.budget, (element) => toBool(at(frame, element, first)));
      case "exists":
        return (frame) => isFound(elements(frame), true, frame.budget, (element) => toBool(at(frame, element, first)));
      case "exists_one":
        return (frame) => elements(frame).filter((element) => toBool(at(frame, element, first))).length === 1;
      case "filter":
        return (frame) => elements(frame).filter((element) => toBool(at(frame, element, first)));
      default:
        return second === undefined
          ? (frame) => elements(frame).map((element) => at(frame, element, first))
          : (frame) =>
              elements(frame)
                .filter((element) => toBool(at(frame, element, first)))
                .map((element) => at(frame, element, second));
    }
  }

  /** `&&` and `||`: what decides wins, also over a failure of the other side. */
  #logic(args: readonly [ASTNode, ASTNode], decisive: boolean): Evaluate {
    const [left, right] = [this.compileBool(args[0]), this.compileBool(args[1])];
    return (frame) => {
      let failure: Failure | undefined;
      try {
        if (toBool(left(frame)) === decisive) return decisive;
      } catch (thrown) {
        failure = asFailure(thrown, frame.budget);
      }
      if (toBool(right(frame)) === decisive) return decisive;
      if (failure !== undefined) throw failure;
      return !decisive;
    };
  }
}

const comprehensions = new Set(["all", "exists", "exists_one", "map", "filter"]);

/** The key that an index writes out; undefined if it is computed. */
function literalKey({ op, args }: ASTNode): string | number | undefined {
  if (op !== "value") return undefined;
  if (typeof args === "string") return args;
  return typeof args === "bigint" && args >= 0n && args < 2n ** 31n ? Number(args) : undefined;
}

function present(value: CelValue | undefined, name: string): CelValue {
  if (value === undefined) throw new Failure(`${name} has no value`);
  return value;
}

function readPattern(source: string): LinearPattern {
  if (source.length > maxPatternLength) throw new PatternError(`is longer than ${maxPatternLength} characters`);
  return compilePattern(source);
}

/** Compiles a pattern that the data give. Costs as much as a few thousand steps. */
function readDynamicPattern(source: string, budget: Budget): LinearPattern {
  spend(budget, 5_000);
  try {
    return readPattern(source);
  } catch (thrown) {
    if (thrown instanceof PatternError) throw new Failure(`a pattern ${thrown.message}`);
    throw thrown;
  }
}

/** Whether a test gives `wanted` for an element; failures count only if it does so for none. */
function isFound(elements: readonly CelValue[], wanted: boolean, budget: Budget, test: (element: CelValue) => boolean) {
  let failure: Failure | undefined;
  for (const element of elements) {
    try {
      if (test(element) === wanted) return true;
    } catch (thrown) {
      failure = asFailure(thrown, budget);
    }
  }
  if (failure !== undefined) throw failure;
  return false;
}

/** What `||`, `&&`, `all` and `exists` may do without; anything else is thrown on. */
function asFailure(thrown: unknown, budget: Budget): Failure {
  if (!(thrown instanceof Failure)) throw thrown;
  // An exception costs as much as some hundred steps.
  spend(budget, 100);
  return thrown;
}
