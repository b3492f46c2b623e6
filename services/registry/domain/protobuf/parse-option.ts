import {
  create,
  type DescField,
  type DescMessage,
  type Message,
  type MessageShape,
  ScalarType,
} from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { type UninterpretedOption, UninterpretedOptionSchema } from "@bufbuild/protobuf/wkt";
import { invalidSchema } from "../schema-fault.ts";
import { integerValue, type TokenReader } from "./token-reader.ts";

/** An option as it stands in the text, not yet looked up. */
export interface RawOption {
  readonly name: readonly { readonly text: string; readonly isExtension: boolean }[];
  readonly value: OptionValue;
  /** Where it stands. */
  readonly where: string;
}

type OptionValue =
  | { readonly kind: "word" | "bytes" | "aggregate"; readonly text: string }
  | { readonly kind: "number"; readonly text: string; readonly isNegative: boolean; readonly isInteger: boolean };

/** `name = value`, of `option name = value;` or of a list in brackets. */
export function parseOption(reader: TokenReader): RawOption {
  const { line, column } = reader.peek();
  const name: { text: string; isExtension: boolean }[] = [];
  do {
    const isExtension = reader.take("(");
    name.push({ text: isExtension ? reader.typeName() : reader.identifier("an option's name"), isExtension });
    if (isExtension) reader.expect(")");
  } while (reader.take("."));
  reader.expect("=");
  return { name, value: parseValue(reader), where: `line ${line}, column ${column}` };
}

/** `[name = value, …]` if there is one. */
export function parseOptionList(reader: TokenReader): readonly RawOption[] {
  const options: RawOption[] = [];
  if (!reader.take("[")) return options;
  do options.push(parseOption(reader));
  while (reader.take(","));
  reader.expect("]");
  return options;
}

function parseValue(reader: TokenReader): OptionValue {
  if (reader.isSymbol("{")) return { kind: "aggregate", text: parseAggregate(reader) };
  if (reader.peek().kind === "string") return { kind: "bytes", text: reader.bytes("a value") };
  const isNegative = reader.take("-");
  const token = reader.next();
  if (token.kind === "integer" || token.kind === "float") {
    return { kind: "number", text: token.text, isNegative, isInteger: token.kind === "integer" };
  }
  if (token.kind !== "identifier" || (isNegative && !["inf", "nan"].includes(token.text))) {
    throw invalidSchema("expected a value", `line ${token.line}, column ${token.column}`);
  }
  return { kind: "word", text: `${isNegative ? "-" : ""}${token.text}` };
}

/** The words between two braces, as protoc keeps them of an option that it cannot interpret. */
function parseAggregate(reader: TokenReader): string {
  const words: string[] = [];
  reader.expect("{");
  for (let depth = 1; ; ) {
    const token = reader.peek();
    if (token.kind === "end") throw reader.fault('expected "}"');
    if (reader.isSymbol("{")) depth += 1;
    if (reader.isSymbol("}")) depth -= 1;
    reader.next();
    if (depth === 0) return words.join(" ");
    words.push(token.kind === "string" ? quote(token.text) : token.text);
  }
}

/** A string literal of these bytes. */
export function quote(bytes: string): string {
  return `"${escapeBytes(bytes)}"`;
}

/** Bytes, one a character, with escapes for what is not printable ASCII. */
export function escapeBytes(bytes: string): string {
  return bytes.replace(/[^\x20-\x7e]|["'\\]/g, (character) => {
    const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "'": "\\'", "\\": "\\\\" }[character];
    return short ?? `\\${character.charCodeAt(0).toString(8).padStart(3, "0")}`;
  });
}

/**
 * Fills a message of `descriptor.proto`'s options. Options of its own are set;
 * those of extensions are kept as written (`uninterpreted_option`), for what
 * they mean is of no account here.
 *
 * @throws AppError INVALID_SCHEMA for an option that there is not
 */
export function toOptions<D extends DescMessage>(schema: D, raw: readonly RawOption[]): MessageShape<D> | undefined {
  if (raw.length === 0) return undefined;
  const options = create(schema);
  for (const option of raw) {
    if (option.name.some(({ isExtension }) => isExtension)) {
      (options as Message & { uninterpretedOption: UninterpretedOption[] }).uninterpretedOption.push(
        toUninterpreted(option),
      );
    } else setOption(schema, options, option);
  }
  return options;
}

function setOption(schema: DescMessage, options: Message, option: RawOption): void {
  const path = option.name.map(({ text }) => text);
  const field = schema.fields.find(({ name }) => name === path[0]);
  if (field === undefined) throw invalidSchema(`there is no option ${path.join(".")}`, option.where);
  const message = reflect(schema, options);
  if (path.length > 1) {
    if (field.fieldKind !== "message") throw invalidSchema(`option ${path[0]} has no parts`, option.where);
    const inner = message.isSet(field) ? message.get(field).message : create(field.message);
    setOption(field.message, inner, { ...option, name: option.name.slice(1) });
    message.set(field, reflect(field.message, inner));
    return;
  }
  if (field.fieldKind === "list" && field.listKind !== "message") {
    message.get(field).add(toScalar(field, option));
  } else if (field.fieldKind === "scalar" || field.fieldKind === "enum") {
    if (message.isSet(field)) throw invalidSchema(`option ${path[0]} is set twice`, option.where);
    message.set(field, toScalar(field, option) as never);
  } else throw invalidSchema(`option ${path[0]} cannot be set in one piece`, option.where);
}

function toScalar(field: DescField, { value, where }: RawOption): unknown {
  const wrong = (expected: string) => invalidSchema(`option ${field.name} takes ${expected}`, where);
  if (field.enum !== undefined) {
    const found = field.enum.values.find(({ name }) => value.kind === "word" && name === value.text);
    if (found === undefined) throw wrong(field.enum.values.map(({ name }) => name).join(", "));
    return found.number;
  }
  switch (field.scalar) {
    case ScalarType.BOOL:
      if (value.kind !== "word" || !/^(true|false)$/.test(value.text)) throw wrong("true or false");
      return value.text === "true";
    case ScalarType.STRING:
      if (value.kind !== "bytes") throw wrong("a string");
      return Buffer.from(value.text, "latin1").toString("utf8");
    default:
      if (value.kind !== "number" || !value.isInteger) throw wrong("an integer");
      return Number(integerValue(value.text)) * (value.isNegative ? -1 : 1);
  }
}

function toUninterpreted({ name, value }: RawOption): UninterpretedOption {
  const option = create(UninterpretedOptionSchema, {
    name: name.map(({ text, isExtension }) => ({ namePart: text, isExtension })),
  });
  switch (value.kind) {
    case "word":
      option.identifierValue = value.text;
      break;
    case "bytes":
      option.stringValue = Buffer.from(value.text, "latin1");
      break;
    case "aggregate":
      option.aggregateValue = value.text;
      break;
    case "number":
      if (!value.isInteger) option.doubleValue = Number(value.text) * (value.isNegative ? -1 : 1);
      else if (value.isNegative) option.negativeIntValue = -BigInt.asUintN(63, integerValue(value.text));
      else option.positiveIntValue = BigInt.asUintN(64, integerValue(value.text));
      break;
  }
  return option;
}
