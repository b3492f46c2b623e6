import { create } from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  DescriptorProtoSchema,
  type FieldDescriptorProto,
  FieldDescriptorProtoSchema,
  FieldOptionsSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { invalidSchema } from "../schema-fault.ts";
import { escapeBytes, parseOptionList, type RawOption, toOptions } from "./parse-option.ts";
import type { Syntax } from "./syntax.ts";
import { integerValue, type TokenReader } from "./token-reader.ts";

/** Where a field stands. */
export interface FieldPlace {
  readonly syntax: Syntax;
  /** Where the messages of groups and the entries of maps go. */
  readonly nested: DescriptorProto[];
  readonly place: "message" | "oneof" | "extension";
  /** Parses `{ … }` of a group. */
  readonly parseBody: (reader: TokenReader, group: DescriptorProto) => void;
}

/** The scalar types by their names. */
const scalarTypes: ReadonlyMap<string, Type> = new Map([
  ["double", Type.DOUBLE],
  ["float", Type.FLOAT],
  ["int64", Type.INT64],
  ["uint64", Type.UINT64],
  ["int32", Type.INT32],
  ["fixed64", Type.FIXED64],
  ["fixed32", Type.FIXED32],
  ["bool", Type.BOOL],
  ["string", Type.STRING],
  ["bytes", Type.BYTES],
  ["uint32", Type.UINT32],
  ["sfixed32", Type.SFIXED32],
  ["sfixed64", Type.SFIXED64],
  ["sint32", Type.SINT32],
  ["sint64", Type.SINT64],
]);

const maxFieldNumber = 0x1fff_ffff;

/** One field: `[label] type name = number [options];`, a map or a group. */
export function parseField(reader: TokenReader, at: FieldPlace): FieldDescriptorProto {
  const field = create(FieldDescriptorProtoSchema, { label: Label.OPTIONAL });
  const hasLabel = parseLabel(reader, at, field);
  if (!hasLabel && reader.isWord("map") && reader.isSymbol("<", 1)) {
    if (at.place !== "message") throw reader.fault("a map stands in a message");
    return parseMap(reader, at, field);
  }
  if (reader.isWord("group") && reader.peek(1).kind === "identifier" && reader.isSymbol("=", 2)) {
    return parseGroup(reader, at, field);
  }
  if (!hasLabel && at.syntax === "proto2" && at.place !== "oneof") {
    throw reader.fault("expected required, optional or repeated");
  }
  setType(field, reader.typeName());
  field.name = reader.identifier("the name of a field");
  parseNumber(reader, field);
  applyOptions(field, parseOptionList(reader), at.syntax);
  reader.expect(";");
  return field;
}

function parseLabel(reader: TokenReader, at: FieldPlace, field: FieldDescriptorProto): boolean {
  const label = { optional: Label.OPTIONAL, required: Label.REQUIRED, repeated: Label.REPEATED }[reader.peek().text];
  // A type can be called like a label: then its name is followed by a field's, and that by a number.
  if (label === undefined || reader.peek().kind !== "identifier" || reader.isSymbol("=", 2)) return false;
  if (at.place === "oneof") throw reader.fault("a field of a oneof has no label");
  if (label === Label.REQUIRED && at.syntax !== "proto2") throw reader.fault("required is of proto2");
  if (label === Label.OPTIONAL && at.syntax === "editions") throw reader.fault("optional is not of editions");
  if (label === Label.OPTIONAL && at.syntax === "proto3" && at.place === "message") field.proto3Optional = true;
  field.label = label;
  reader.next();
  return true;
}

function setType(field: FieldDescriptorProto, name: string): void {
  const scalar = scalarTypes.get(name);
  if (scalar !== undefined) field.type = scalar;
  // Whether it is a message or an enum is known when all is read.
  else field.typeName = name;
}

function parseNumber(reader: TokenReader, field: FieldDescriptorProto): void {
  reader.expect("=");
  field.number = reader.integer("the number of a field", 1, maxFieldNumber);
}

function parseMap(reader: TokenReader, at: FieldPlace, field: FieldDescriptorProto): FieldDescriptorProto {
  reader.expect("map");
  reader.expect("<");
  const key = create(FieldDescriptorProtoSchema, { name: "key", number: 1, label: Label.OPTIONAL });
  setType(key, reader.identifier("the type of a key"));
  if (key.typeName !== "" || [Type.DOUBLE, Type.FLOAT, Type.BYTES].includes(key.type))
    throw reader.fault("a key is an integer, a bool or a string");
  reader.expect(",");
  const value = create(FieldDescriptorProtoSchema, { name: "value", number: 2, label: Label.OPTIONAL });
  setType(value, reader.typeName());
  reader.expect(">");
  field.name = reader.identifier("the name of a field");
  field.label = Label.REPEATED;
  const entry = create(DescriptorProtoSchema, {
    name: entryName(field.name),
    field: [key, value],
    options: { mapEntry: true },
  });
  field.type = Type.MESSAGE;
  field.typeName = entry.name;
  at.nested.push(entry);
  parseNumber(reader, field);
  applyOptions(field, parseOptionList(reader), at.syntax);
  reader.expect(";");
  return field;
}

/** The name that protoc gives to the message of a map's entries: `my_map` is `MyMapEntry`. */
function entryName(field: string): string {
  return `${field.replace(/(?:^|_)([a-z])|_/g, (_all, letter?: string) => letter?.toUpperCase() ?? "")}Entry`;
}

function parseGroup(reader: TokenReader, at: FieldPlace, field: FieldDescriptorProto): FieldDescriptorProto {
  if (at.syntax !== "proto2") throw reader.fault("groups are of proto2");
  reader.expect("group");
  const name = reader.identifier("the name of a group");
  if (!/^[A-Z]/.test(name)) throw reader.fault("the name of a group begins with a capital");
  field.name = name.toLowerCase();
  field.type = Type.GROUP;
  field.typeName = name;
  parseNumber(reader, field);
  applyOptions(field, parseOptionList(reader), at.syntax);
  const message = create(DescriptorProtoSchema, { name });
  at.parseBody(reader, message);
  at.nested.push(message);
  return field;
}

/** Two of a field's options are no options to `descriptor.proto`: the default and the name in JSON. */
function applyOptions(field: FieldDescriptorProto, raw: readonly RawOption[], syntax: Syntax): void {
  const isPseudo = (option: RawOption, name: string): boolean =>
    option.name.length === 1 && option.name[0]?.text === name && !option.name[0].isExtension;
  for (const option of raw) {
    if (isPseudo(option, "default")) {
      if (syntax === "proto3") throw invalidSchema("proto3 has no defaults", option.where);
      field.defaultValue = defaultOf(field, option);
    } else if (isPseudo(option, "json_name")) {
      if (option.value.kind !== "bytes") throw invalidSchema("json_name takes a string", option.where);
      field.jsonName = Buffer.from(option.value.text, "latin1").toString("utf8");
    }
  }
  field.options = toOptions(
    FieldOptionsSchema,
    raw.filter((option) => !isPseudo(option, "default") && !isPseudo(option, "json_name")),
  );
}

/** A default in the spelling of `FieldDescriptorProto.default_value`. */
function defaultOf(field: FieldDescriptorProto, { value, where }: RawOption): string {
  const wrong = invalidSchema(`no default for field ${field.name}`, where);
  if (field.typeName !== "") {
    if (value.kind === "word") return value.text;
  } else if (field.type === Type.STRING || field.type === Type.BYTES) {
    if (value.kind !== "bytes") throw wrong;
    return field.type === Type.BYTES ? escapeBytes(value.text) : Buffer.from(value.text, "latin1").toString("utf8");
  } else if (field.type === Type.BOOL) {
    if (value.kind === "word" && /^(true|false)$/.test(value.text)) return value.text;
  } else if (field.type === Type.DOUBLE || field.type === Type.FLOAT) {
    if (value.kind === "word" && /^-?(inf|nan)$/.test(value.text)) return value.text;
    if (value.kind === "number") return `${value.isNegative ? "-" : ""}${Number(value.text)}`;
  } else if (value.kind === "number" && value.isInteger) {
    return `${value.isNegative ? "-" : ""}${integerValue(value.text)}`;
  }
  throw wrong;
}
