import { type DescEnum, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { invalidSchema } from "../schema-fault.ts";
import { integerValue, type TokenReader } from "./token-reader.ts";

/** Something of the text format that is not read: maps, and extensions or `Any` in brackets. */
export class UnsupportedText extends Error {
  override readonly name = "UnsupportedText";
}

/** What a value can be of: a field, an extension, an item of a list. */
interface ValueType {
  readonly scalar?: ScalarType | undefined;
  readonly enum?: DescEnum | undefined;
  readonly message?: DescMessage | undefined;
}

/**
 * Reads the fields of a message in the text format
 * (https://protobuf.dev/reference/protobuf/textformat-spec/) up to a closing
 * symbol, into a message.
 *
 * @throws AppError INVALID_SCHEMA
 * @throws UnsupportedText
 */
export function mergeText(reader: TokenReader, message: ReflectMessage, close: "}" | ">"): void {
  while (!reader.take(close)) {
    if (reader.isSymbol("[")) throw new UnsupportedText();
    const name = reader.identifier("a field");
    const field = message.fields.find((one) => one.name === name);
    if (field === undefined) throw invalidSchema(`${message.desc.typeName} has no field ${name}`);
    if (field.fieldKind === "map") throw new UnsupportedText();
    const hasColon = reader.take(":");
    if (!hasColon && field.message === undefined) throw reader.fault('expected ":"');
    if (field.fieldKind === "list") {
      const list = message.get(field);
      if (reader.take("[")) {
        while (!reader.take("]")) {
          list.add(parseTextValue(reader, field));
          if (!reader.isSymbol("]")) reader.expect(",");
        }
      } else list.add(parseTextValue(reader, field));
    } else message.set(field, parseTextValue(reader, field) as never);
    if (!reader.take(",")) reader.take(";");
  }
}

/** One value: a scalar, an enum's name, or a message in braces, as a `ReflectMessage` takes it. Throws as `mergeText`. */
export function parseTextValue(reader: TokenReader, type: ValueType): unknown {
  if (type.message !== undefined) {
    const message = reflect(type.message);
    if (reader.take("<")) mergeText(reader, message, ">");
    else {
      reader.expect("{");
      mergeText(reader, message, "}");
    }
    return message;
  }
  if (type.enum !== undefined) return parseEnum(reader, type.enum);
  switch (type.scalar) {
    case ScalarType.STRING:
      return reader.text("a text");
    case ScalarType.BYTES:
      return new Uint8Array(Buffer.from(reader.bytes("a text"), "latin1"));
    case ScalarType.BOOL:
      if (reader.take("true")) return true;
      reader.expect("false");
      return false;
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return parseFloatingPoint(reader);
    default:
      return parseInteger(reader, type.scalar);
  }
}

function parseEnum(reader: TokenReader, declared: DescEnum): number {
  if (reader.peek().kind === "integer" || reader.isSymbol("-")) return Number(parseInteger(reader, ScalarType.INT32));
  const name = reader.identifier("the name of a value");
  const value = declared.values.find((one) => one.name === name);
  if (value === undefined) throw invalidSchema(`${declared.typeName} has no value ${name}`);
  return value.number;
}

function parseFloatingPoint(reader: TokenReader): number {
  const sign = reader.take("-") ? -1 : 1;
  const token = reader.next();
  if (token.kind === "identifier" && /^(inf|infinity)$/i.test(token.text)) return sign * Number.POSITIVE_INFINITY;
  if (token.kind === "identifier" && /^nan$/i.test(token.text)) return Number.NaN;
  if (token.kind !== "integer" && token.kind !== "float") throw invalidSchema("expected a number");
  return sign * (token.kind === "integer" ? Number(integerValue(token.text)) : Number(token.text));
}

const wide: ReadonlySet<ScalarType | undefined> = new Set([
  ScalarType.INT64,
  ScalarType.UINT64,
  ScalarType.SINT64,
  ScalarType.FIXED64,
  ScalarType.SFIXED64,
]);

function parseInteger(reader: TokenReader, scalar: ScalarType | undefined): number | bigint {
  const isNegative = reader.take("-");
  const token = reader.next();
  if (token.kind !== "integer") throw invalidSchema("expected an integer");
  const value = isNegative ? -integerValue(token.text) : integerValue(token.text);
  return wide.has(scalar) ? value : Number(value);
}
