/**
 * The rules of a contract as plain functions, made once for each message type:
 * a tenth of what it costs to interpret them. They say whether a message surely
 * holds to its rules. What they do not know, and what does not hold, is left to
 * the validator, which names each rule that is broken.
 */
import { type DescField, type DescMessage, getOption, hasOption, type Message } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import {
  type DurationRules,
  type FieldRules,
  field as fieldRules,
  Ignore,
  message as messageRules,
  oneof as oneofRules,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";

/** Whether a value surely holds to its rules. */
type Check = (value: unknown) => boolean;

const compiled = new Map<DescMessage, Check | undefined>();

/** Whether a message surely holds to the rules of its contract. */
export function surelyHolds(schema: DescMessage, message: Message): boolean {
  const check = checkOf(schema);
  return check === undefined || check(message);
}

/** The check of a message type; undefined if neither it nor what is in it has rules. */
function checkOf(schema: DescMessage): Check | undefined {
  if (schema.typeName.startsWith("google.protobuf.")) return undefined;
  if (compiled.has(schema)) return compiled.get(schema);
  // A type may hold itself: whoever asks meanwhile gets a check that looks again when it is used.
  compiled.set(schema, (message) => compiled.get(schema)?.(message) ?? true);
  const check = compile(schema);
  compiled.set(schema, check);
  return check;
}

function compile(schema: DescMessage): Check | undefined {
  if (hasOption(schema, messageRules)) return unknown;
  const checks: Check[] = [];
  for (const oneof of schema.oneofs) {
    if (!hasOption(oneof, oneofRules)) continue;
    const { localName } = oneof;
    if (getOption(oneof, oneofRules).required) {
      checks.push((message) => (message as Selected)[localName]?.case !== undefined);
    }
  }
  for (const field of schema.fields) {
    const check = compileField(field);
    if (check !== undefined) checks.push(check);
  }
  if (checks.length === 0) return undefined;
  return (message) => {
    for (const check of checks) if (!check(message)) return false;
    return true;
  };
}

type Selected = Readonly<Record<string, { readonly case?: string; readonly value?: unknown } | undefined>>;

function compileField(field: DescField): Check | undefined {
  const rules = hasOption(field, fieldRules) ? getOption(field, fieldRules) : undefined;
  if (rules?.ignore === Ignore.ALWAYS) return undefined;
  if (rules !== undefined && (rules.cel.length > 0 || rules.celExpression.length > 0)) return unknown;
  const check = compileValue(field, rules);
  const required = rules?.required === true;
  if (check === undefined && !required) return undefined;
  const { localName } = field;
  if (field.oneof !== undefined) {
    const group = field.oneof.localName;
    return (message) => {
      const selected = (message as Selected)[group];
      if (selected?.case !== localName) return !required;
      return check?.(selected.value) ?? true;
    };
  }
  if (field.fieldKind === "list" || field.fieldKind === "map") {
    const count = field.fieldKind === "list" ? lengthOf : sizeOf;
    const ignoresEmpty = rules?.ignore === Ignore.IF_ZERO_VALUE;
    return (message) => {
      const value = (message as Readonly<Record<string, unknown>>)[localName];
      if (count(value) === 0 && (required || ignoresEmpty)) return !required;
      return check?.(value) ?? true;
    };
  }
  const implicit = field.presence === FeatureSet_FieldPresence.IMPLICIT;
  const ignoresZero = rules?.ignore === Ignore.IF_ZERO_VALUE;
  return (message) => {
    const value = (message as Readonly<Record<string, unknown>>)[localName];
    if (value === undefined) return !required;
    if (implicit && (required || ignoresZero) && isZero(value)) return !required;
    return check?.(value) ?? true;
  };
}

function compileValue(field: DescField, rules: FieldRules | undefined): Check | undefined {
  switch (field.fieldKind) {
    case "scalar":
      return compileScalar(rules);
    case "enum":
      return compileEnum(
        rules,
        field.enum.values.map(({ number }) => number),
      );
    case "message": {
      const own = rules === undefined ? undefined : compileMessageRules(rules);
      return both(own, checkOf(field.message));
    }
    case "list": {
      const item = compileItem(field, rules?.type.case === "repeated" ? rules.type.value.items : undefined);
      if (rules === undefined || rules.type.case === undefined) return item === undefined ? undefined : each(item);
      if (rules.type.case !== "repeated") return unknown;
      const { minItems, maxItems, unique } = rules.type.value;
      if (!onlyHas(rules.type.value, ["minItems", "maxItems", "unique", "items"])) return unknown;
      const most = maxItems === 0n ? Number.POSITIVE_INFINITY : Number(maxItems);
      return (value) => {
        const list = value as readonly unknown[];
        if (list.length < Number(minItems) || list.length > most) return false;
        if (unique && new Set(list).size !== list.length) return false;
        return item === undefined || list.every(item);
      };
    }
    case "map": {
      const nested = field.mapKind === "message" ? checkOf(field.message) : undefined;
      if (rules === undefined || rules.type.case === undefined) {
        return nested === undefined ? undefined : (value) => Object.values(value as object).every(nested);
      }
      if (rules.type.case !== "map") return unknown;
      const { minPairs, maxPairs, keys, values } = rules.type.value;
      if (!onlyHas(rules.type.value, ["minPairs", "maxPairs", "keys", "values"])) return unknown;
      const key = keys === undefined ? undefined : compileScalar(keys);
      const member = values === undefined ? nested : both(compileScalar(values), nested);
      const most = maxPairs === 0n ? Number.POSITIVE_INFINITY : Number(maxPairs);
      return (value) => {
        const entries = Object.entries(value as object);
        if (entries.length < Number(minPairs) || entries.length > most) return false;
        return entries.every(([name, item]) => (key?.(name) ?? true) && (member?.(item) ?? true));
      };
    }
  }
}

function compileItem(field: DescField & { fieldKind: "list" }, items: FieldRules | undefined): Check | undefined {
  if (items !== undefined && (items.cel.length > 0 || items.ignore !== Ignore.UNSPECIFIED || items.required)) {
    return unknown;
  }
  switch (field.listKind) {
    case "scalar":
      return compileScalar(items);
    case "enum":
      return compileEnum(
        items,
        field.enum.values.map(({ number }) => number),
      );
    case "message":
      return items !== undefined && items.type.case !== undefined ? unknown : checkOf(field.message);
  }
}

function compileScalar(rules: FieldRules | undefined): Check | undefined {
  switch (rules?.type.case) {
    case undefined:
      return undefined;
    case "string": {
      const { minLen, maxLen, maxBytes, pattern } = rules.type.value;
      if (!onlyHas(rules.type.value, ["minLen", "maxLen", "maxBytes", "pattern"])) return unknown;
      const least = Number(minLen);
      const most = maxLen === 0n ? Number.POSITIVE_INFINITY : Number(maxLen);
      const bytes = maxBytes === 0n ? Number.POSITIVE_INFINITY : Number(maxBytes);
      const expression = pattern === "" ? undefined : patternOf(pattern);
      return (value) => {
        const text = value as string;
        // A character has one or two units, and at most three bytes a unit.
        if (text.length < least * 2 && charactersIn(text) < least) return false;
        if (text.length > most && charactersIn(text) > most) return false;
        if (text.length * 3 > bytes && Buffer.byteLength(text) > bytes) return false;
        return expression === undefined || expression.test(text);
      };
    }
    case "bytes": {
      const { len } = rules.type.value;
      if (!onlyHas(rules.type.value, ["len"])) return unknown;
      return (value) => (value as Uint8Array).length === Number(len);
    }
    case "int32":
    case "int64":
    case "uint32":
    case "uint64": {
      const { greaterThan, lessThan } = rules.type.value;
      if (!onlyHas(rules.type.value, ["greaterThan", "lessThan"])) return unknown;
      if (greaterThan.case === "gt" || lessThan.case === "lt") return unknown;
      const least = greaterThan.value;
      const most = lessThan.value;
      // With the least above the most, the range is what is outside.
      if (least !== undefined && most !== undefined && least > most) return unknown;
      return (value) =>
        (least === undefined || (value as number) >= least) && (most === undefined || (value as number) <= most);
    }
    default:
      return unknown;
  }
}

function compileEnum(rules: FieldRules | undefined, numbers: readonly number[]): Check | undefined {
  if (rules?.type.case === undefined) return undefined;
  if (rules.type.case !== "enum" || !onlyHas(rules.type.value, ["definedOnly", "notIn"])) return unknown;
  const { definedOnly, notIn } = rules.type.value;
  const defined = new Set(numbers);
  const refused = new Set(notIn);
  return (value) => (!definedOnly || defined.has(value as number)) && !refused.has(value as number);
}

function compileMessageRules(rules: FieldRules): Check | undefined {
  if (rules.type.case === undefined) return undefined;
  if (rules.type.case !== "duration" || !onlyHas(rules.type.value, ["greaterThan", "lessThan"])) return unknown;
  return compileDuration(rules.type.value);
}

interface Duration {
  readonly seconds: bigint;
  readonly nanos: number;
}

function compileDuration({ greaterThan, lessThan }: DurationRules): Check {
  const low = greaterThan.value;
  const high = lessThan.value;
  if (low !== undefined && high !== undefined && compareDurations(low, high) >= 0) return unknown;
  const aboveLow = greaterThan.case === "gt" ? 1 : 0;
  const belowHigh = lessThan.case === "lt" ? -1 : 0;
  return (value) => {
    const duration = value as Duration;
    if (low !== undefined && compareDurations(duration, low) < aboveLow) return false;
    return high === undefined || compareDurations(duration, high) <= belowHigh;
  };
}

/** Negative, 0 or positive, as for a sort. */
function compareDurations(a: Duration, b: Duration): number {
  if (a.seconds !== b.seconds) return a.seconds < b.seconds ? -1 : 1;
  return Math.sign(a.nanos - b.nanos);
}

/** A rule that only the validator knows. */
const unknown: Check = () => false;

function both(first: Check | undefined, second: Check | undefined): Check | undefined {
  if (first === undefined) return second;
  if (second === undefined) return first;
  return (value) => first(value) && second(value);
}

function each(check: Check): Check {
  return (value) => (value as readonly unknown[]).every(check);
}

/** Whether rules say nothing but these. */
function onlyHas(rules: Message & object, names: readonly string[]): boolean {
  return Object.entries(rules).every(([name, value]) => {
    if (name.startsWith("$") || names.includes(name)) return name !== "$unknown" || value === undefined;
    if (Array.isArray(value)) return value.length === 0;
    if (typeof value === "object" && value !== null) return (value as { readonly case?: string }).case === undefined;
    return value === undefined || isZero(value);
  });
}

function isZero(value: unknown): boolean {
  if (value instanceof Uint8Array) return value.length === 0;
  return value === "" || value === 0 || value === 0n || value === false;
}

function lengthOf(value: unknown): number {
  return (value as readonly unknown[]).length;
}

function sizeOf(value: unknown): number {
  return Object.keys(value as object).length;
}

function charactersIn(text: string): number {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

const patterns = new Map<string, RegExp>();

/**
 * Patterns come from our own contracts, all of them linear, so the platform's
 * engine is safe and saves the default's cost; bounded by what the contracts hold.
 */
export function patternOf(pattern: string): RegExp {
  let expression = patterns.get(pattern);
  if (expression === undefined) {
    expression = new RegExp(pattern, "u");
    patterns.set(pattern, expression);
  }
  return expression;
}
