import { type DescFile, type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { AppError } from "../errors/app-error.ts";

/**
 * Confluent's wire format for Protobuf
 * (docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop#wire-format):
 * a zero byte, the schema's id as four bytes big-endian, the message's indexes,
 * the message.
 *
 * A schema is a file, and a file declares several messages: the indexes lead to
 * one of them, from the file's top down, as a count and that many zigzag
 * varints. The first message of a file, `[0]`, is written as a single zero.
 */
export interface WireMessage {
  readonly schemaId: number;
  readonly messageIndexes: readonly number[];
  /** The message's own bytes. */
  readonly bytes: Uint8Array;
}

const magic = 0;
/** Deeper nesting than anybody writes; bounds what a hostile count makes us read. */
const maxDepth = 32;

/** Where a message is declared in its file. */
export function messageIndexesOf(message: DescMessage): readonly number[] {
  const indexes: number[] = [];
  for (let current: DescMessage | undefined = message; current !== undefined; current = current.parent) {
    const siblings: readonly DescMessage[] = current.parent?.nestedMessages ?? current.file.messages;
    indexes.unshift(siblings.indexOf(current));
  }
  return indexes;
}

/** The message at a place in a file; `undefined` if there is none. */
export function messageAt(file: DescFile, indexes: readonly number[]): DescMessage | undefined {
  let found: DescMessage | undefined;
  let siblings: readonly DescMessage[] = file.messages;
  for (const index of indexes) {
    found = siblings[index];
    if (found === undefined) return undefined;
    siblings = found.nestedMessages;
  }
  return found;
}

/** Encodes a message under the id of the schema that declares it. */
export function encodeWire<D extends DescMessage>(schemaId: number, schema: D, message: MessageShape<D>): Uint8Array {
  if (!Number.isInteger(schemaId) || schemaId < 0 || schemaId > 0x7fffffff) {
    throw new TypeError("a schema's id has 31 bits");
  }
  const indexes = messageIndexesOf(schema);
  const head = [magic, schemaId >>> 24, (schemaId >>> 16) & 0xff, (schemaId >>> 8) & 0xff, schemaId & 0xff];
  if (indexes.length === 1 && indexes[0] === 0) {
    head.push(0);
  } else {
    for (const value of [indexes.length, ...indexes]) pushVarint(head, value);
  }
  const body = toBinary(schema, message);
  const encoded = new Uint8Array(head.length + body.length);
  encoded.set(head);
  encoded.set(body, head.length);
  return encoded;
}

/**
 * Takes the framing off.
 *
 * @throws AppError MALFORMED_MESSAGE if it is not in the format
 */
export function decodeWire(encoded: Uint8Array): WireMessage {
  if (encoded.length < 6 || encoded[0] !== magic) throw malformed("no Confluent framing");
  const schemaId = new DataView(encoded.buffer, encoded.byteOffset).getInt32(1);
  if (schemaId < 0) throw malformed("the schema id is negative");
  const reader = { encoded, position: 5 };
  const count = readVarint(reader);
  if (count === 0) return { schemaId, messageIndexes: [0], bytes: encoded.subarray(reader.position) };
  if (count < 0 || count > maxDepth) throw malformed("the number of message indexes is out of range");
  const messageIndexes: number[] = [];
  for (let index = 0; index < count; index++) {
    const value = readVarint(reader);
    if (value < 0) throw malformed("a message index is negative");
    messageIndexes.push(value);
  }
  return { schemaId, messageIndexes, bytes: encoded.subarray(reader.position) };
}

/** Decodes a message's own bytes. Throws as `decodeWire`. */
export function decodeMessage<D extends DescMessage>(schema: D, bytes: Uint8Array): MessageShape<D> {
  try {
    return fromBinary(schema, bytes);
  } catch (cause) {
    throw malformed(`no ${schema.typeName}`, cause);
  }
}

function pushVarint(target: number[], value: number): void {
  let rest = value * 2; // zigzag of what is not negative
  while (rest > 0x7f) {
    target.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  target.push(rest);
}

function readVarint(reader: { readonly encoded: Uint8Array; position: number }): number {
  let value = 0;
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = reader.encoded[reader.position++];
    if (byte === undefined) throw malformed("it ends within the message indexes");
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) {
      if (value > 0xffffffff) break;
      return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
    }
  }
  throw malformed("a message index is too large");
}

function malformed(what: string, cause?: unknown): AppError {
  return new AppError("MALFORMED_MESSAGE", `the event is malformed: ${what}`, { cause });
}
