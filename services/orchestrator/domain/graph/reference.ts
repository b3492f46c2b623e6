import { AppError } from "../../../runtime/errors/app-error.ts";
import type { Json, JsonObject } from "../json.ts";
import type { Scope } from "./scope.ts";

/** A value that a template or condition names, for example `steps.fetch.output.items[0].id`. */
export interface Reference {
  readonly root: "input" | "steps" | "item" | "index" | "output";
  /** The step; empty unless the root is `steps`. */
  readonly step: string;
  /** The members and positions that lead from there to the value. */
  readonly path: readonly (string | number)[];
  readonly source: string;
}

const maxLength = 1_024;
const root = /^(?:(input|item|index|output)|steps\.([a-z][a-z0-9_]{0,62})\.output)(?=[.[]|$)/;
const part = /\.([A-Za-z_][\w-]*)|\[(0|[1-9]\d{0,8})\]|\[("(?:[^"\\]|\\.)*")\]/y;

/**
 * Reads a reference. Members that are no plain names are quoted:
 * `input["first name"]`.
 *
 * @returns the reference, or a text that says what is wrong with it
 */
export function parseReference(source: string): Reference | string {
  if (source.length > maxLength) return `is longer than ${maxLength} characters`;
  const start = root.exec(source);
  if (start === null) {
    return 'is no reference: write input, steps.<name>.output, item, index or output, then .member, ["member"] or [0]';
  }
  const path: (string | number)[] = [];
  part.lastIndex = start[0].length;
  while (part.lastIndex < source.length) {
    const at = part.lastIndex;
    const found = part.exec(source);
    const key = found === null ? undefined : toKey(found);
    if (key === undefined) return `cannot be read from its character ${at + 1} on: write .member, ["member"] or [0]`;
    path.push(key);
  }
  return { root: (start[1] ?? "steps") as Reference["root"], step: start[2] ?? "", path, source };
}

function toKey([, name, index, quoted]: RegExpExecArray): string | number | undefined {
  if (name !== undefined) return name;
  if (index !== undefined) return Number(index);
  try {
    return JSON.parse(quoted ?? "") as string;
  } catch {
    // An escape that JSON does not have.
    return undefined;
  }
}

/**
 * The value of a reference, not copied.
 *
 * @throws AppError EVALUATION_FAILED if there is none
 */
export function valueOf(reference: Reference, scope: Scope): Json {
  const value = lookUp(reference, scope);
  if (value === undefined) throw new AppError("EVALUATION_FAILED", `${reference.source} has no value`);
  return value;
}

/** The value of a reference, not copied; undefined if there is none. */
export function lookUp(reference: Reference, scope: Scope): Json | undefined {
  let value = rootValue(reference, scope);
  for (const key of reference.path) {
    if (value === undefined) return undefined;
    value = memberOf(value, key);
  }
  return value;
}

/** A member of an object, by text, or an element of an array, by number; undefined if there is none. */
export function memberOf(value: Json, key: string | number): Json | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  if (Array.isArray(value)) return typeof key === "number" ? (value as readonly Json[])[key] : undefined;
  // A plain read would find what every object inherits.
  return typeof key === "string" && Object.hasOwn(value, key) ? (value as JsonObject)[key] : undefined;
}

function rootValue({ root, step }: Reference, scope: Scope): Json | undefined {
  switch (root) {
    case "input":
      return scope.input;
    case "steps":
      return scope.output(step);
    case "item":
      return scope.item;
    case "index":
      return scope.index;
    case "output":
      return scope.own;
  }
}
