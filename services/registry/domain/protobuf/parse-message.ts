import { create } from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  DescriptorProto_ExtensionRangeSchema,
  DescriptorProto_ReservedRangeSchema,
  DescriptorProtoSchema,
  ExtensionRangeOptionsSchema,
  type FieldDescriptorProto,
  FieldDescriptorProto_Label,
  MessageOptionsSchema,
  OneofDescriptorProtoSchema,
  OneofOptionsSchema,
} from "@bufbuild/protobuf/wkt";
import { parseEnum } from "./parse-enum.ts";
import { type FieldPlace, parseField } from "./parse-field.ts";
import { parseOption, parseOptionList, type RawOption, toOptions } from "./parse-option.ts";
import { parseRanges, parseReserved } from "./parse-reserved.ts";
import type { Syntax } from "./syntax.ts";
import type { TokenReader } from "./token-reader.ts";

/** The greatest number of a field. */
const maxFieldNumber = 0x1fff_ffff;
/** As in protoc. */
const maxDepth = 32;

/** The rest of `message Name { … }`, from the name on. */
export function parseMessage(reader: TokenReader, syntax: Syntax, depth = 1): DescriptorProto {
  const message = create(DescriptorProtoSchema, { name: reader.identifier("the name of a message") });
  parseMessageBody(reader, syntax, message, depth);
  return message;
}

/** `{ … }` of a message or a group. */
function parseMessageBody(reader: TokenReader, syntax: Syntax, message: DescriptorProto, depth: number): void {
  if (depth > maxDepth) throw reader.fault(`messages are nested at most ${maxDepth} deep`);
  const options: RawOption[] = [];
  reader.expect("{");
  while (!reader.take("}")) parseElement(reader, syntax, message, options, depth);
  message.options = toOptions(MessageOptionsSchema, options);
  addSyntheticOneofs(message);
}

function placeOf(place: FieldPlace["place"], syntax: Syntax, nested: DescriptorProto[], depth: number): FieldPlace {
  return { place, syntax, nested, parseBody: (reader, group) => parseMessageBody(reader, syntax, group, depth + 1) };
}

function parseElement(
  reader: TokenReader,
  syntax: Syntax,
  message: DescriptorProto,
  options: RawOption[],
  depth: number,
): void {
  if (reader.take(";")) return;
  // Each of these words can also begin the name of a field's type.
  const begins = (word: string, next: (ahead: number) => boolean): boolean => {
    if (!reader.isWord(word) || !next(1)) return false;
    reader.next();
    return true;
  };
  const isName = (ahead: number): boolean => reader.peek(ahead).kind === "identifier";
  const isBlock = (ahead: number): boolean => isName(ahead) && reader.isSymbol("{", ahead + 1);
  const isNumberOrName = (ahead: number): boolean =>
    ["integer", "string"].includes(reader.peek(ahead).kind) ||
    (isName(ahead) && (reader.isSymbol(",", ahead + 1) || reader.isSymbol(";", ahead + 1)));
  if (begins("message", isBlock)) message.nestedType.push(parseMessage(reader, syntax, depth + 1));
  else if (begins("enum", isBlock)) message.enumType.push(parseEnum(reader));
  else if (begins("oneof", isBlock)) parseOneof(reader, syntax, message, depth);
  else if (begins("reserved", isNumberOrName)) {
    const { ranges, names } = parseReserved(reader, 1, maxFieldNumber);
    for (const { start, last } of ranges) {
      message.reservedRange.push(create(DescriptorProto_ReservedRangeSchema, { start, end: last + 1 }));
    }
    message.reservedName.push(...names);
  } else if (begins("extensions", isNumberOrName)) parseExtensionRanges(reader, message);
  else if (begins("option", (ahead) => isName(ahead) || reader.isSymbol("(", ahead))) {
    options.push(parseOption(reader));
    reader.expect(";");
  } else if (begins("extend", (ahead) => isName(ahead) || reader.isSymbol(".", ahead))) {
    parseExtend(reader, syntax, message.extension, message.nestedType, depth);
  } else message.field.push(parseField(reader, placeOf("message", syntax, message.nestedType, depth)));
}

/** The rest of `extend Type { … }`, after the word. Groups within are messages of the surrounding. */
export function parseExtend(
  reader: TokenReader,
  syntax: Syntax,
  extensions: FieldDescriptorProto[],
  nested: DescriptorProto[],
  depth = 0,
): void {
  const extendee = reader.typeName();
  reader.expect("{");
  while (!reader.take("}")) {
    if (reader.take(";")) continue;
    const field = parseField(reader, placeOf("extension", syntax, nested, depth));
    field.extendee = extendee;
    extensions.push(field);
  }
}

function parseOneof(reader: TokenReader, syntax: Syntax, message: DescriptorProto, depth: number): void {
  const oneof = create(OneofDescriptorProtoSchema, { name: reader.identifier("the name of a oneof") });
  const index = message.oneofDecl.push(oneof) - 1;
  const options: RawOption[] = [];
  reader.expect("{");
  while (!reader.take("}")) {
    if (reader.take(";")) continue;
    if (reader.isWord("option") && (reader.peek(1).kind === "identifier" || reader.isSymbol("(", 1))) {
      reader.next();
      options.push(parseOption(reader));
      reader.expect(";");
      continue;
    }
    const field = parseField(reader, placeOf("oneof", syntax, message.nestedType, depth));
    field.oneofIndex = index;
    message.field.push(field);
  }
  oneof.options = toOptions(OneofOptionsSchema, options);
}

function parseExtensionRanges(reader: TokenReader, message: DescriptorProto): void {
  const ranges = parseRanges(reader, 1, maxFieldNumber);
  const options = toOptions(ExtensionRangeOptionsSchema, parseOptionList(reader));
  reader.expect(";");
  for (const { start, last } of ranges) {
    message.extensionRange.push(
      create(DescriptorProto_ExtensionRangeSchema, { start, end: last + 1, ...(options && { options }) }),
    );
  }
}

/** Each `optional` field of proto3 is the one member of a oneof, which comes after those that were written. */
function addSyntheticOneofs(message: DescriptorProto): void {
  const taken = new Set([
    ...message.field.map(({ name }) => name),
    ...message.oneofDecl.map(({ name }) => name),
    ...message.nestedType.map(({ name }) => name),
    ...message.enumType.map(({ name }) => name),
  ]);
  for (const field of message.field) {
    if (!field.proto3Optional || field.label !== FieldDescriptorProto_Label.OPTIONAL) continue;
    let name = field.name.startsWith("_") ? field.name : `_${field.name}`;
    while (taken.has(name)) name = `X${name}`;
    taken.add(name);
    field.oneofIndex = message.oneofDecl.push(create(OneofDescriptorProtoSchema, { name })) - 1;
  }
}
