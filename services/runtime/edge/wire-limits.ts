import { isUtf8 } from "node:buffer";
import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { AppError } from "../errors/app-error.ts";

/** What a binary message may be made of. */
export interface WireLimits {
  /** Messages and groups within each other. */
  readonly maxDepth: number;
  /** Messages, and elements of repeated fields, together. */
  readonly maxValues: number;
}

/**
 * The defaults. 100 levels are what Protobuf implementations read; a `Struct`
 * takes three for each of its own.
 */
export const wireLimits: WireLimits = Object.freeze({ maxDepth: 100, maxValues: 100_000 });

const varint = 0;
const fixed64 = 1;
const delimited = 2;
const startGroup = 3;
const endGroup = 4;
const fixed32 = 5;

/** How a field is read: the wire type of its values, and what they are inside. */
interface FieldPlan {
  readonly name: string;
  readonly number: number;
  readonly wireType: number;
  readonly repeated: boolean;
  /** Repeated numbers may come packed into one length-delimited record. */
  readonly packable: boolean;
  readonly utf8: boolean;
  readonly message: MessagePlan | undefined;
}

type MessagePlan = ReadonlyMap<number, FieldPlan>;

/**
 * Checks that bytes are a message of a type, within limits, before anything is
 * built from them. One pass, linear, without allocation. Stricter than a
 * parser: a known field with the wrong wire type is refused, not kept as an
 * unknown one.
 *
 * @throws AppError MALFORMED_MESSAGE that names the field by its path, and never a value
 */
export function assertMessageWithinLimits(desc: DescMessage, bytes: Uint8Array, limits: WireLimits = wireLimits): void {
  const walk: Walk = { bytes, position: 0, values: 0, limits, path: [] };
  try {
    walkMessage(walk, planOf(desc), bytes.byteLength, 1, undefined);
  } catch (error) {
    if (!(error instanceof WireProblem)) throw error;
    const field = walk.path.join(".").slice(0, 256);
    throw new AppError(
      "MALFORMED_MESSAGE",
      field === "" ? `the message ${error.message}` : `the field ${field} ${error.message}`,
      { violations: field === "" ? [] : [{ field, message: error.message }] },
    );
  }
}

class WireProblem extends Error {}

interface Walk {
  readonly bytes: Uint8Array;
  readonly limits: WireLimits;
  /** Names of the fields down to where the walk is. */
  readonly path: string[];
  position: number;
  values: number;
}

/** Walks to `end`, or within a group to its end tag. */
function walkMessage(walk: Walk, plan: MessagePlan, end: number, depth: number, group: number | undefined): void {
  if (depth > walk.limits.maxDepth) throw new WireProblem(`is nested deeper than ${walk.limits.maxDepth}`);
  count(walk, 1);
  while (walk.position < end) {
    const tag = readUint32(walk, end);
    const number = tag >>> 3;
    const wireType = tag & 7;
    if (number === 0) throw new WireProblem("has field number 0");
    if (wireType === endGroup) {
      if (group !== number) throw new WireProblem("ends a group that did not begin");
      return;
    }
    const known = plan.get(number);
    if (known === undefined) {
      skip(walk, wireType, number, end, depth);
      continue;
    }
    walk.path.push(known.name);
    walkField(walk, known, wireType, end, depth);
    walk.path.pop();
  }
  if (group !== undefined) throw new WireProblem("has a group without an end");
}

function walkField(walk: Walk, plan: FieldPlan, wireType: number, end: number, depth: number): void {
  if (wireType !== plan.wireType) {
    if (wireType !== delimited || !plan.packable) throw new WireProblem("has the wrong wire type");
    walkPacked(walk, plan.wireType, end);
    return;
  }
  if (plan.repeated) count(walk, 1);
  if (wireType === startGroup) {
    walkMessage(walk, plan.message ?? new Map(), end, depth + 1, plan.number);
    return;
  }
  if (wireType !== delimited) {
    skip(walk, wireType, plan.number, end, depth);
    return;
  }
  const stop = readLength(walk, end);
  if (plan.message !== undefined) walkMessage(walk, plan.message, stop, depth + 1, undefined);
  else if (plan.utf8 && !isText(walk.bytes, walk.position, stop)) throw new WireProblem("is not UTF-8");
  walk.position = stop;
}

function walkPacked(walk: Walk, wireType: number, end: number): void {
  const stop = readLength(walk, end);
  if (wireType === varint) {
    while (walk.position < stop) {
      skipVarint(walk, stop);
      count(walk, 1);
    }
    return;
  }
  const size = wireType === fixed64 ? 8 : 4;
  if ((stop - walk.position) % size !== 0) throw new WireProblem("is cut off");
  count(walk, (stop - walk.position) / size);
  walk.position = stop;
}

/** Moves past a record of a field that the type does not have. */
function skip(walk: Walk, wireType: number, number: number, end: number, depth: number): void {
  switch (wireType) {
    case varint:
      skipVarint(walk, end);
      return;
    case fixed64:
    case fixed32:
      walk.position += wireType === fixed64 ? 8 : 4;
      if (walk.position > end) throw new WireProblem("is cut off");
      return;
    case delimited:
      walk.position = readLength(walk, end);
      return;
    case startGroup:
      walkMessage(walk, noFields, end, depth + 1, number);
      return;
    default:
      throw new WireProblem("has an unknown wire type");
  }
}

const noFields: MessagePlan = new Map();

function count(walk: Walk, values: number): void {
  walk.values += values;
  if (walk.values > walk.limits.maxValues) throw new WireProblem(`has more than ${walk.limits.maxValues} values`);
}

function skipVarint(walk: Walk, end: number): void {
  for (let length = 1; length <= 10; length++) {
    if (walk.position >= end) throw new WireProblem("is cut off");
    if ((walk.bytes[walk.position++] ?? 0) < 0x80) return;
  }
  throw new WireProblem("has a number of too many bytes");
}

/** Reads a varint that must fit into 32 bits: a tag or a length. */
function readUint32(walk: Walk, end: number): number {
  let value = 0;
  for (let shift = 0; shift < 35; shift += 7) {
    if (walk.position >= end) throw new WireProblem("is cut off");
    const byte = walk.bytes[walk.position++] ?? 0;
    if (shift === 28 && byte > 0x0f) break;
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) return value;
  }
  throw new WireProblem("has a number of too many bytes");
}

/** Reads a length; returns where what it measures ends. */
function readLength(walk: Walk, end: number): number {
  const length = readUint32(walk, end);
  if (length > end - walk.position) throw new WireProblem("is cut off");
  return walk.position + length;
}

function isText(bytes: Uint8Array, start: number, end: number): boolean {
  let position = start;
  while (position < end && (bytes[position] ?? 0) < 0x80) position += 1;
  return position === end || isUtf8(bytes.subarray(position, end));
}

const plans = new WeakMap<DescMessage, Map<number, FieldPlan>>();

function planOf(desc: DescMessage): MessagePlan {
  const existing = plans.get(desc);
  if (existing !== undefined) return existing;
  const plan = new Map<number, FieldPlan>();
  // Noted before its fields are looked at, because types contain themselves.
  plans.set(desc, plan);
  for (const field of desc.fields) plan.set(field.number, planField(field));
  return plan;
}

function planField(field: DescField): FieldPlan {
  const base = {
    name: field.name,
    number: field.number,
    repeated: false,
    packable: false,
    utf8: false,
    message: undefined,
  };
  switch (field.fieldKind) {
    case "message":
      return {
        ...base,
        wireType: field.delimitedEncoding ? startGroup : delimited,
        message: planOf(field.message),
      };
    case "enum":
      return { ...base, wireType: varint };
    case "scalar":
      return { ...base, wireType: scalarWireType(field.scalar), utf8: field.scalar === ScalarType.STRING };
    case "list": {
      if (field.listKind === "message") {
        return {
          ...base,
          repeated: true,
          wireType: field.delimitedEncoding ? startGroup : delimited,
          message: planOf(field.message),
        };
      }
      const wireType = field.listKind === "enum" ? varint : scalarWireType(field.scalar);
      const utf8 = field.listKind === "scalar" && field.scalar === ScalarType.STRING;
      return { ...base, repeated: true, wireType, packable: wireType !== delimited, utf8 };
    }
    case "map":
      return { ...base, repeated: true, wireType: delimited, message: planEntry(field) };
  }
}

/** A map's entry on the wire is a message of key (1) and value (2). */
function planEntry(field: DescField & { fieldKind: "map" }): MessagePlan {
  const base = { repeated: false, packable: false, message: undefined };
  const key: FieldPlan = {
    ...base,
    name: "key",
    number: 1,
    wireType: scalarWireType(field.mapKey),
    utf8: field.mapKey === ScalarType.STRING,
  };
  const valueBase = { ...base, name: "value", number: 2 };
  const value: FieldPlan =
    field.mapKind === "message"
      ? { ...valueBase, wireType: delimited, utf8: false, message: planOf(field.message) }
      : field.mapKind === "enum"
        ? { ...valueBase, wireType: varint, utf8: false }
        : { ...valueBase, wireType: scalarWireType(field.scalar), utf8: field.scalar === ScalarType.STRING };
  return new Map([
    [1, key],
    [2, value],
  ]);
}

function scalarWireType(scalar: ScalarType): number {
  switch (scalar) {
    case ScalarType.DOUBLE:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return fixed64;
    case ScalarType.FLOAT:
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return fixed32;
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return delimited;
    default:
      return varint;
  }
}
