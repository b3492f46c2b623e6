/** What operators and functions of expressions do with values. */
/** A value of an expression: JSON, in which bigints are integers of 64 bits. */
export type CelValue = null | boolean | number | bigint | string | readonly CelValue[] | CelObject;

interface CelObject {
  readonly [key: string]: CelValue;
}

/** The steps that an evaluation may still make. */
export interface Budget {
  steps: number;
}

/** An expression has no value on its data. */
export class Failure extends Error {
  override readonly name = "Failure";
}

/** The budget of an evaluation ended. */
export class BudgetError extends Error {
  override readonly name = "BudgetError";

  constructor() {
    super("it takes too long on these data");
  }
}

/** Pays for steps. @throws BudgetError if there are not so many left */
export function spend(budget: Budget, steps: number): void {
  budget.steps -= steps;
  if (budget.steps < 0) throw new BudgetError();
}

/** What a value is, in words. */
export function kindOf(value: CelValue): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  switch (typeof value) {
    case "bigint":
      return "an integer";
    case "number":
      return "a number";
    case "string":
      return "a text";
    case "boolean":
      return "a bool";
    default:
      return "an object";
  }
}

/** @throws Failure if it is none */
export function toBool(value: CelValue): boolean {
  if (typeof value !== "boolean") throw new Failure(`${kindOf(value)} is where a bool should be`);
  return value;
}

/** @throws Failure if it is none */
export function toText(value: CelValue): string {
  if (typeof value !== "string") throw new Failure(`${kindOf(value)} is where a text should be`);
  return value;
}

/** A member of an object or an element of a list; undefined if there is none. */
export function memberOfValue(of: CelValue, key: CelValue): CelValue | undefined {
  if (Array.isArray(of)) return of[toIndex(key)] as CelValue | undefined;
  if (typeof of === "object" && of !== null) return ownMember(of as CelObject, toText(key));
  throw new Failure(`${kindOf(of)} has no members`);
}

function ownMember(of: CelObject, key: string): CelValue | undefined {
  return Object.hasOwn(of, key) ? of[key] : undefined;
}

/** What a comprehension walks over: the elements of a list, the keys of an object. */
export function elementsOf(value: CelValue): readonly CelValue[] {
  if (Array.isArray(value)) return value as readonly CelValue[];
  if (typeof value === "object" && value !== null) return Object.keys(value);
  throw new Failure(`${kindOf(value)} is where a list should be`);
}

/** How many elements, members or characters there are. */
export function size(value: CelValue, budget: Budget): bigint {
  if (typeof value === "string") {
    spend(budget, value.length >> 2);
    return BigInt([...value].length);
  }
  return BigInt(elementsOf(value).length);
}

export function negate(value: CelValue): CelValue {
  if (typeof value === "number") return -value;
  if (typeof value === "bigint") return int64(-value);
  throw new Failure(`${kindOf(value)} cannot be negated`);
}

/** Methods of texts with one argument. */
export const textTests = new Map<string, (text: string, part: string, budget: Budget) => boolean>([
  [
    "contains",
    (text, part, budget) => {
      // The engine's search may compare each character with each.
      spend(budget, Math.ceil((text.length * part.length) / 256));
      return text.includes(part);
    },
  ],
  [
    "startsWith",
    (text, part, budget) => {
      spend(budget, part.length >> 6);
      return text.startsWith(part);
    },
  ],
  [
    "endsWith",
    (text, part, budget) => {
      spend(budget, part.length >> 6);
      return text.endsWith(part);
    },
  ],
]);

/** Functions of one argument. */
export const functions = new Map<string, (value: CelValue, budget: Budget) => CelValue>([
  ["size", size],
  ["dyn", (value) => value],
  ["string", toStringValue],
  ["int", toInt],
  ["double", toDouble],
]);

type Operator = (left: CelValue, right: CelValue, budget: Budget) => CelValue;

/** Operators of two operands. */
export const operators = {
  "==": equals,
  "!=": (left, right, budget) => !equals(left, right, budget),
  "<": (left, right, budget) => compare(left, right, budget) < 0,
  "<=": (left, right, budget) => compare(left, right, budget) <= 0,
  ">": (left, right, budget) => compare(left, right, budget) > 0,
  ">=": (left, right, budget) => compare(left, right, budget) >= 0,
  in: isIn,
  "+": add,
  "-": (left, right) => calculate("-", left, right),
  "*": (left, right) => calculate("*", left, right),
  "/": (left, right) => calculate("/", left, right),
  "%": (left, right) => calculate("%", left, right),
} as const satisfies Record<string, Operator>;

/** Equality as CEL has it: numbers by value, whatever their kind; values of different kinds are not equal. */
function equals(left: CelValue, right: CelValue, budget: Budget): boolean {
  spend(budget, 1);
  if (isNumber(left) && isNumber(right)) return compareNumbers(left, right) === 0;
  if (typeof left === "string" && typeof right === "string") {
    spend(budget, Math.min(left.length, right.length) >> 6);
    return left === right;
  }
  if (typeof left !== "object" || typeof right !== "object" || left === null || right === null) return left === right;
  if (Array.isArray(left) || Array.isArray(right)) {
    if (!Array.isArray(left) || !Array.isArray(right) || left.length !== right.length) return false;
    return left.every((item: CelValue, at) => equals(item, right[at] as CelValue, budget));
  }
  return areEqualObjects(left as CelObject, right as CelObject, budget);
}

function areEqualObjects(left: CelObject, right: CelObject, budget: Budget): boolean {
  const keys = Object.keys(left);
  spend(budget, keys.length);
  if (keys.length !== Object.keys(right).length) return false;
  return keys.every((key) => {
    const other = ownMember(right, key);
    return other !== undefined && equals(left[key] ?? null, other, budget);
  });
}

function isIn(value: CelValue, of: CelValue, budget: Budget): boolean {
  if (Array.isArray(of)) return of.some((item: CelValue) => equals(value, item, budget));
  if (typeof of === "object" && of !== null) return typeof value === "string" && Object.hasOwn(of, value);
  throw new Failure(`${kindOf(of)} is where a list or an object should be`);
}

/** Less than 0, 0, or more, or NaN, which is no order. Texts are ordered by their UTF-16 code units. */
function compare(left: CelValue, right: CelValue, budget: Budget): number {
  if (isNumber(left) && isNumber(right)) return compareNumbers(left, right);
  if (typeof left === "string" && typeof right === "string") {
    spend(budget, Math.min(left.length, right.length) >> 6);
    return left < right ? -1 : left > right ? 1 : 0;
  }
  if (typeof left === "boolean" && typeof right === "boolean") return Number(left) - Number(right);
  throw new Failure(`${kindOf(left)} and ${kindOf(right)} have no order`);
}

/** ECMAScript compares numbers and bigints by value, but has no strict equality of them. */
function compareNumbers(left: number | bigint, right: number | bigint): number {
  if (left < right) return -1;
  if (left > right) return 1;
  return Number.isNaN(left) || Number.isNaN(right) ? Number.NaN : 0;
}

function add(left: CelValue, right: CelValue, budget: Budget): CelValue {
  if (typeof left === "string" && typeof right === "string") {
    spend(budget, (left.length + right.length) >> 4);
    return left + right;
  }
  if (Array.isArray(left) && Array.isArray(right)) {
    spend(budget, left.length + right.length);
    return [...(left as readonly CelValue[]), ...(right as readonly CelValue[])];
  }
  return calculate("+", left, right);
}

function calculate(operator: "+" | "-" | "*" | "/" | "%", left: CelValue, right: CelValue): number | bigint {
  if (!isNumber(left) || !isNumber(right)) {
    throw new Failure(`${kindOf(left)} ${operator} ${kindOf(right)} has no meaning`);
  }
  if (typeof left === "bigint" && typeof right === "bigint") return calculateInt(operator, left, right);
  switch (operator) {
    case "+":
      return Number(left) + Number(right);
    case "-":
      return Number(left) - Number(right);
    case "*":
      return Number(left) * Number(right);
    case "/":
      return Number(left) / Number(right);
    case "%":
      return calculateInt(operator, whole(left), whole(right));
  }
}

function calculateInt(operator: "+" | "-" | "*" | "/" | "%", left: bigint, right: bigint): bigint {
  if ((operator === "/" || operator === "%") && right === 0n) throw new Failure("a division by zero has no value");
  switch (operator) {
    case "+":
      return int64(left + right);
    case "-":
      return int64(left - right);
    case "*":
      return int64(left * right);
    case "/":
      return int64(left / right);
    case "%":
      return left % right;
  }
}

function int64(value: bigint): bigint {
  if (value !== BigInt.asIntN(64, value)) throw new Failure("an integer does not fit into 64 bits");
  return value;
}

function whole(value: number | bigint): bigint {
  if (typeof value === "bigint") return value;
  if (!Number.isInteger(value)) throw new Failure("a number that is not whole is where an integer should be");
  return BigInt(value);
}

function toIndex(key: CelValue): number {
  if (!isNumber(key)) throw new Failure(`${kindOf(key)} is where a position should be`);
  return Number(whole(key));
}

function isNumber(value: CelValue): value is number | bigint {
  return typeof value === "number" || typeof value === "bigint";
}

function toStringValue(value: CelValue): string {
  if (typeof value === "object") throw new Failure(`${kindOf(value)} has no text`);
  return String(value);
}

function toInt(value: CelValue): bigint {
  if (typeof value === "bigint") return value;
  if (typeof value === "number" && Number.isFinite(value)) return int64(BigInt(Math.trunc(value)));
  if (typeof value === "string" && /^[+-]?\d{1,19}$/.test(value)) return int64(BigInt(value.replace(/^\+/, "")));
  throw new Failure(`${kindOf(value)} has no integer`);
}

function toDouble(value: CelValue): number {
  if (isNumber(value)) return Number(value);
  if (typeof value === "string" && /^[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400})([eE][+-]?\d{1,4})?$/.test(value)) {
    return Number(value);
  }
  throw new Failure(`${kindOf(value)} has no number`);
}
