/**
 * Copies of messages as they would come out of being encoded and decoded, made
 * at a fraction of what that costs, with the size that they would have had.
 *
 * What is not surely regular is not copied: a value that encoding refuses or
 * changes (text with half a character, a number out of range), fields that the
 * contract does not know, nesting that decoding might refuse. Whoever asked
 * encodes and decodes that message, and so gets the same answer as over a wire.
 */
import {
  type DescField,
  type DescMessage,
  type DescOneof,
  isMessage,
  type Message,
  type MessageShape,
  ScalarType,
} from "@bufbuild/protobuf";
import { Edition, FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";

/** A copy, and how many bytes it would have, encoded. */
export interface MessageCopy {
  readonly message: Message;
  readonly byteLength: number;
}

/** How deep messages are nested at most. Less than what decoding allows, which is 100. */
const maxDepth = 64;

/** Thrown by what comes upon something irregular. */
const irregular = new Error("not a regular message");

/** What is counted while a message is copied. */
interface Tally {
  bytes: number;
  depth: number;
}

/** Copies a value and adds what it takes, encoded, without a tag. */
type CopyValue = (value: unknown, tally: Tally) => unknown;

type Fields = Record<string, unknown>;

/** Copies a member of a message to another. */
type CopyMember = (from: Readonly<Fields>, to: Fields, tally: Tally) => void;

/** Copies a message. Returns undefined for one that has to be encoded and decoded instead. */
export function copyMessage<D extends DescMessage>(schema: D, message: MessageShape<D>): MessageCopy | undefined {
  const tally: Tally = { bytes: 0, depth: 0 };
  try {
    const copy = copierOf(schema)(message, tally) as Message;
    return { message: copy, byteLength: tally.bytes };
  } catch (thrown) {
    if (thrown === irregular) return undefined;
    throw thrown;
  }
}

const copiers = new WeakMap<DescMessage, CopyValue>();

function copierOf(schema: DescMessage): CopyValue {
  let copier = copiers.get(schema);
  if (copier === undefined) {
    copier = compileMessage(schema);
    copiers.set(schema, copier);
  }
  return copier;
}

function compileMessage(schema: DescMessage): CopyValue {
  if (schema.file.edition !== Edition.EDITION_PROTO3) return refuse;
  const { typeName } = schema;
  const members: CopyMember[] = [];
  const copier: CopyValue = (value, tally) => {
    if (!isMessage(value, schema) || (value.$unknown !== undefined && value.$unknown.length > 0)) throw irregular;
    enter(tally);
    // In the order of `create`, which gives it the same hidden class.
    const copy: Fields = { $typeName: typeName };
    for (const copyMember of members) copyMember(value as unknown as Fields, copy, tally);
    tally.depth -= 1;
    return copy;
  };
  // A type may hold itself.
  copiers.set(schema, copier);
  for (const member of schema.members)
    members.push(member.kind === "oneof" ? compileOneof(member) : compileField(member));
  return copier;
}

function enter(tally: Tally): void {
  tally.depth += 1;
  if (tally.depth > maxDepth) throw irregular;
}

const refuse: CopyValue = () => {
  throw irregular;
};

function compileOneof(oneof: DescOneof): CopyMember {
  const { localName } = oneof;
  const cases = new Map(oneof.fields.map((field) => [field.localName, compileTagged(field)]));
  return (from, to, tally) => {
    const selected = from[localName] as { readonly case?: string; readonly value?: unknown } | undefined;
    if (selected?.case === undefined) {
      to[localName] = { case: undefined };
      return;
    }
    const copyValue = cases.get(selected.case);
    if (copyValue === undefined) throw irregular;
    to[localName] = { case: selected.case, value: copyValue(selected.value, tally) };
  };
}

function compileField(field: DescField): CopyMember {
  switch (field.fieldKind) {
    case "list":
      return compileList(field);
    case "map":
      return compileMap(field);
    default:
      return field.presence === FeatureSet_FieldPresence.IMPLICIT ? compileImplicit(field) : compileExplicit(field);
  }
}

/** A field that is there or not. */
function compileExplicit(field: DescField): CopyMember {
  const { localName } = field;
  const copyValue = compileTagged(field);
  return (from, to, tally) => {
    const value = from[localName];
    if (value !== undefined) to[localName] = copyValue(value, tally);
  };
}

/** A field that is not encoded if it is zero. */
function compileImplicit(field: DescField): CopyMember {
  const { localName } = field;
  const copyValue = compileTagged(field);
  const isZero = zeroTest(field);
  return (from, to, tally) => {
    const value = from[localName];
    if (!isZero(value)) to[localName] = copyValue(value, tally);
    else to[localName] = typeof value === "object" ? new Uint8Array() : value;
  };
}

function zeroTest(field: DescField): (value: unknown) => boolean {
  const scalar = field.fieldKind === "scalar" ? field.scalar : ScalarType.INT32;
  switch (scalar) {
    case ScalarType.STRING:
      return (value) => value === "";
    case ScalarType.BOOL:
      return (value) => value === false;
    case ScalarType.INT64:
    case ScalarType.UINT64:
      return (value) => value === 0n;
    case ScalarType.BYTES:
      return (value) => value instanceof Uint8Array && value.byteLength === 0;
    default:
      return (value) => Object.is(value, 0);
  }
}

function compileList(field: DescField & { readonly fieldKind: "list" }): CopyMember {
  const { localName, number } = field;
  const copyItem = field.listKind === "message" ? compileMessageValue(field) : compileScalar(field);
  const itemTag = field.packed ? 0 : sizeOfTag(number);
  return (from, to, tally) => {
    const items = from[localName];
    if (!Array.isArray(items)) throw irregular;
    const before = tally.bytes;
    const copies: unknown[] = [];
    for (const item of items) {
      tally.bytes += itemTag;
      copies.push(copyItem(item, tally));
    }
    if (field.packed && items.length > 0) tally.bytes += sizeOfTag(number) + sizeOfVarint(tally.bytes - before);
    to[localName] = copies;
  };
}

function compileMap(field: DescField & { readonly fieldKind: "map" }): CopyMember {
  const { localName, number, mapKey } = field;
  const copyItem = field.mapKind === "message" ? compileMessageValue(field) : compileScalar(field);
  const tag = sizeOfTag(number);
  return (from, to, tally) => {
    const items = from[localName];
    if (!isPlainObject(items)) throw irregular;
    const copies: Fields = {};
    for (const key of Object.keys(items)) {
      if (mapKey !== ScalarType.STRING || key === "__proto__") throw irregular;
      const before = tally.bytes;
      // The tags of key and value.
      tally.bytes += 2 + sizeOfText(key);
      copies[key] = copyItem(items[key], tally);
      tally.bytes += tag + sizeOfVarint(tally.bytes - before);
    }
    to[localName] = copies;
  };
}

/** Copies a single value and counts its tag, too. */
function compileTagged(field: DescField): CopyValue {
  const tag = sizeOfTag(field.number);
  const copyValue = field.fieldKind === "message" ? compileMessageValue(field) : compileScalar(field);
  return (value, tally) => {
    tally.bytes += tag;
    return copyValue(value, tally);
  };
}

/** Copies a message within another, and counts the length before it, too. */
function compileMessageValue(field: DescField): CopyValue {
  const schema = field.message;
  // Wrappers are shown as what they wrap, and in another way in a oneof or a list.
  if (schema === undefined || isWrapper(schema) || ("delimitedEncoding" in field && field.delimitedEncoding))
    return refuse;
  const isJson = schema.typeName === "google.protobuf.Struct" && field.parent.typeName !== "google.protobuf.Value";
  const copyValue = isJson ? copyJsonObject : copierOf(schema);
  return (value, tally) => {
    const before = tally.bytes;
    const copy = copyValue(value, tally);
    tally.bytes += sizeOfVarint(tally.bytes - before);
    return copy;
  };
}

function isWrapper(schema: DescMessage): boolean {
  return schema.file.name === "google/protobuf/wrappers";
}

function compileScalar(field: DescField): CopyValue {
  if (field.enum !== undefined) return field.enum.open ? copyInt32 : refuse;
  if (field.scalar === undefined || ("longAsString" in field && field.longAsString)) return refuse;
  return scalarCopiers.get(field.scalar) ?? refuse;
}

const copyText: CopyValue = (value, tally) => {
  if (typeof value !== "string") throw irregular;
  tally.bytes += sizeOfText(value);
  return value;
};

const copyBytes: CopyValue = (value, tally) => {
  if (!(value instanceof Uint8Array)) throw irregular;
  const { byteLength } = value;
  tally.bytes += sizeOfVarint(byteLength) + byteLength;
  // Not `slice`: that of a Buffer shares its memory.
  return new Uint8Array(value);
};

const copyBool: CopyValue = (value, tally) => {
  if (typeof value !== "boolean") throw irregular;
  tally.bytes += 1;
  return value;
};

const copyDouble: CopyValue = (value, tally) => {
  if (typeof value !== "number") throw irregular;
  tally.bytes += 8;
  return value;
};

const copyFloat: CopyValue = (value, tally) => {
  if (typeof value !== "number" || Math.fround(value) !== value) throw irregular;
  tally.bytes += 4;
  return value;
};

const copyInt32: CopyValue = (value, tally) => {
  if (!isInteger(value, -0x80000000, 0x7fffffff)) throw irregular;
  tally.bytes += value < 0 ? 10 : sizeOfVarint(value);
  return value;
};

const copyUint32: CopyValue = (value, tally) => {
  if (!isInteger(value, 0, 0xffffffff)) throw irregular;
  tally.bytes += sizeOfVarint(value);
  return value;
};

const copyInt64: CopyValue = (value, tally) => {
  if (typeof value !== "bigint" || BigInt.asIntN(64, value) !== value) throw irregular;
  tally.bytes += sizeOfVarint64(BigInt.asUintN(64, value));
  return value;
};

const copyUint64: CopyValue = (value, tally) => {
  if (typeof value !== "bigint" || BigInt.asUintN(64, value) !== value) throw irregular;
  tally.bytes += sizeOfVarint64(value);
  return value;
};

/** Those that are missing are used nowhere. */
const scalarCopiers: ReadonlyMap<ScalarType, CopyValue> = new Map([
  [ScalarType.STRING, copyText],
  [ScalarType.BYTES, copyBytes],
  [ScalarType.BOOL, copyBool],
  [ScalarType.DOUBLE, copyDouble],
  [ScalarType.FLOAT, copyFloat],
  [ScalarType.INT32, copyInt32],
  [ScalarType.UINT32, copyUint32],
  [ScalarType.INT64, copyInt64],
  [ScalarType.UINT64, copyUint64],
]);

/** A google.protobuf.Struct, which messages hold as JSON. Counts the Struct's fields. */
const copyJsonObject: CopyValue = (value, tally) => {
  if (!isPlainObject(value)) throw irregular;
  enter(tally);
  const copy: Fields = {};
  for (const key of Object.keys(value)) {
    if (key === "__proto__") throw irregular;
    const before = tally.bytes;
    // The tags of key and value.
    tally.bytes += 2 + sizeOfText(key);
    copy[key] = copyJson(value[key], tally);
    // The tag of the entry.
    tally.bytes += 1 + sizeOfVarint(tally.bytes - before);
  }
  tally.depth -= 1;
  return copy;
};

/** A google.protobuf.Value, and the length before it. */
const copyJson: CopyValue = (value, tally) => {
  const before = tally.bytes;
  // The tag of what it is.
  tally.bytes += 1;
  const copy = copyJsonKind(value, tally);
  tally.bytes += sizeOfVarint(tally.bytes - before);
  return copy;
};

function copyJsonKind(value: unknown, tally: Tally): unknown {
  switch (typeof value) {
    case "string":
      return copyText(value, tally);
    case "number":
      return copyDouble(value, tally);
    case "boolean":
      return copyBool(value, tally);
    case "object":
      break;
    default:
      throw irregular;
  }
  if (value === null) {
    tally.bytes += 1;
    return null;
  }
  enter(tally);
  const before = tally.bytes;
  const copy = Array.isArray(value) ? copyJsonArray(value, tally) : copyJsonObject(value, tally);
  tally.bytes += sizeOfVarint(tally.bytes - before);
  tally.depth -= 1;
  return copy;
}

function copyJsonArray(values: readonly unknown[], tally: Tally): unknown[] {
  enter(tally);
  const copies: unknown[] = [];
  for (const value of values) {
    // The tag of the item.
    tally.bytes += 1;
    copies.push(copyJson(value, tally));
  }
  tally.depth -= 1;
  return copies;
}

function isPlainObject(value: unknown): value is Readonly<Fields> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function isInteger(value: unknown, least: number, most: number): value is number {
  return Number.isInteger(value) && !Object.is(value, -0) && Number(value) >= least && Number(value) <= most;
}

/** Of UTF-8 and the length before it. */
function sizeOfText(text: string): number {
  const bytes = Buffer.byteLength(text);
  // Text of one byte a character is ASCII, and surely has no half of a character.
  if (bytes !== text.length && !text.isWellFormed()) throw irregular;
  return sizeOfVarint(bytes) + bytes;
}

function sizeOfTag(fieldNumber: number): number {
  return sizeOfVarint(fieldNumber * 8);
}

/** Of an integer from 0 on that a number holds exactly. */
function sizeOfVarint(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 128; rest /= 128) size += 1;
  return size;
}

/** Of an integer from 0 on, below 2 ** 64. */
function sizeOfVarint64(value: bigint): number {
  if (value <= Number.MAX_SAFE_INTEGER) return sizeOfVarint(Number(value));
  if (value < 2n ** 56n) return 8;
  return value < 2n ** 63n ? 9 : 10;
}
