import { create } from "@bufbuild/protobuf";
import {
  Edition,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileOptionsSchema,
} from "@bufbuild/protobuf/wkt";
import { parseEnum } from "./parse-enum.ts";
import { parseExtend, parseMessage } from "./parse-message.ts";
import { parseOption, type RawOption, toOptions } from "./parse-option.ts";
import { parseService } from "./parse-service.ts";
import type { Syntax } from "./syntax.ts";
import { TokenReader } from "./token-reader.ts";

const maxImports = 500;

/**
 * Parses a `.proto` file of proto2, proto3 or edition 2023 into a descriptor
 * without a name, whose types are named as they stand in the text
 * (https://protobuf.com/docs/language-spec). Comments are dropped.
 *
 * @throws AppError INVALID_SCHEMA naming line and column
 */
export function parseFile(text: string): FileDescriptorProto {
  const reader = new TokenReader(text);
  const file = create(FileDescriptorProtoSchema);
  const options: RawOption[] = [];
  const syntax = parseSyntax(reader, file);
  while (reader.peek().kind !== "end") parseElement(reader, file, syntax, options);
  file.options = toOptions(FileOptionsSchema, options);
  return file;
}

function parseSyntax(reader: TokenReader, file: FileDescriptorProto): Syntax {
  if (reader.take("edition")) {
    reader.expect("=");
    if (reader.peek().text !== "2023") throw reader.fault('the edition that is understood is "2023"');
    reader.text("an edition");
    reader.expect(";");
    file.syntax = "editions";
    file.edition = Edition.EDITION_2023;
    return "editions";
  }
  if (!reader.take("syntax")) return "proto2";
  reader.expect("=");
  const { text } = reader.peek();
  if (text !== "proto2" && text !== "proto3") throw reader.fault('expected "proto2" or "proto3"');
  reader.text("a syntax");
  reader.expect(";");
  // protoc leaves out what is the default.
  if (text === "proto3") file.syntax = text;
  return text;
}

function parseElement(reader: TokenReader, file: FileDescriptorProto, syntax: Syntax, options: RawOption[]): void {
  if (reader.take(";")) return;
  if (reader.take("import")) parseImport(reader, file);
  else if (reader.take("package")) {
    if (file.package !== "") throw reader.fault("a file has one package");
    file.package = reader.dottedName("a package");
    reader.expect(";");
  } else if (reader.take("option")) {
    options.push(parseOption(reader));
    reader.expect(";");
  } else if (reader.take("message")) file.messageType.push(parseMessage(reader, syntax));
  else if (reader.take("enum")) file.enumType.push(parseEnum(reader));
  else if (reader.take("service")) file.service.push(parseService(reader));
  else if (reader.take("extend")) parseExtend(reader, syntax, file.extension, file.messageType);
  else throw reader.fault("expected a message, an enum, a service, an import or an option");
}

function parseImport(reader: TokenReader, file: FileDescriptorProto): void {
  const index = file.dependency.length;
  if (index === maxImports) throw reader.fault(`a file imports at most ${maxImports} others`);
  if (reader.take("public")) file.publicDependency.push(index);
  else if (reader.take("weak")) file.weakDependency.push(index);
  const path = reader.text("the path of a file");
  if (file.dependency.includes(path)) throw reader.fault(`${path} is imported twice`);
  file.dependency.push(path);
  reader.expect(";");
}
