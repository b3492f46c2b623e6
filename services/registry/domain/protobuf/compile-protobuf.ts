import { createHash } from "node:crypto";
import { clearField, clone, createFileRegistry, type FileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  type FieldDescriptorProto,
  FieldDescriptorProtoSchema,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  type FileDescriptorSet,
} from "@bufbuild/protobuf/wkt";
import { wellKnownFile } from "../../../runtime/reflection/well-known-file.ts";
import { invalidSchema } from "../schema-fault.ts";
import { assertFile } from "./assert-file.ts";
import { canonicalizeOptions, interpretOptions } from "./interpret-options.ts";
import { defaultJsonName, fillJsonNames } from "./json-name.ts";
import { linkFile } from "./link-file.ts";
import { normalizeFile } from "./normalize-file.ts";
import { parseFile } from "./parse-file.ts";
import { printFile } from "./print-file.ts";

/** The files that a schema's references stand for, and those that these import, by path. */
export type Imports = ReadonlyMap<string, FileDescriptorProto>;

/** A Protobuf file that compiles. */
export interface CompiledProtobuf {
  /** As it was written; of a file that came as a descriptor, or was normalized, as it is printed. */
  readonly text: string;
  /** The `FileDescriptorProto`. */
  readonly descriptor: Uint8Array;
  /** The same bytes for whatever is the same contract, whatever its layout, its comments and its name. */
  readonly content: Uint8Array;
}

/** A schema, its imports and theirs, at most. */
const maxFiles = 500;

/**
 * Compiles a file from its text or from a `FileDescriptorProto` in base64.
 *
 * @param name what a file is called that does not say so itself; made of its content unless given
 * @throws AppError INVALID_SCHEMA saying what is wrong, and where
 */
export function compileProtobuf(schema: string, imports: Imports, normalize: boolean, name?: string): CompiledProtobuf {
  const fileOf = importResolver(imports);
  const decoded = decodeDescriptor(schema);
  const parsed = decoded ?? parseFile(schema);
  if (decoded === undefined) linkFile(parsed, fileOf);
  const file = normalize ? normalizeFile(parsed) : parsed;
  assertFile(file);
  // Named after its content, which is not known before its options are.
  file.name ||= name ?? "";
  const isNamed = file.name !== "";
  if (!isNamed) file.name = "schema.proto";
  const registry = createRegistry(file, imports);
  interpretOptions(file, registry);
  const content = toBinary(FileDescriptorProtoSchema, canonical(file, registry));
  if (!isNamed) file.name = `schema-${createHash("sha256").update(content).digest("hex").slice(0, 16)}.proto`;
  const text = decoded === undefined && !normalize ? schema : printFile(file, registry);
  return { text, descriptor: toBinary(FileDescriptorProtoSchema, file), content };
}

/**
 * The types of a file and of all that it imports.
 *
 * @throws AppError INVALID_SCHEMA if one is missing
 */
export function createRegistry(file: FileDescriptorProto, imports: Imports): FileRegistry {
  const fileOf = importResolver(imports);
  // protobuf-es wants a file after those that it imports.
  const sorted: FileDescriptorProto[] = [];
  const state = new Map<string, "open" | "done">();
  const visit = (next: FileDescriptorProto): void => {
    if (state.get(next.name) === "done") return;
    if (state.get(next.name) === "open") throw invalidSchema(`${next.name} imports itself`);
    if (state.size >= maxFiles) throw invalidSchema(`it imports more than ${maxFiles} files`);
    state.set(next.name, "open");
    for (const path of next.dependency) visit(fileOf(path));
    state.set(next.name, "done");
    fillJsonNames(next);
    sorted.push(next);
  };
  visit(file);
  const set: FileDescriptorSet = { $typeName: "google.protobuf.FileDescriptorSet", file: sorted };
  try {
    return createFileRegistry(set);
  } catch (thrown) {
    throw invalidSchema(thrown instanceof Error ? thrown.message : "the types do not fit together");
  }
}

function importResolver(imports: Imports): (path: string) => FileDescriptorProto {
  return (path) => {
    const found = imports.get(path) ?? wellKnownFile(path);
    if (found === undefined) {
      throw invalidSchema(
        `import ${JSON.stringify(path)} is neither a file of Protobuf's own nor among the references`,
      );
    }
    return found;
  };
}

/** The descriptor in a base64 text; `undefined` for a text that is not base64, which no `.proto` file is. */
function decodeDescriptor(schema: string): FileDescriptorProto | undefined {
  const trimmed = schema.trim();
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(trimmed)) return undefined;
  let file: FileDescriptorProto;
  try {
    file = fromBinary(FileDescriptorProtoSchema, Buffer.from(trimmed, "base64"));
  } catch (thrown) {
    throw invalidSchema(
      "it is neither a .proto file nor a FileDescriptorProto in base64",
      String(thrown).slice(0, 200),
    );
  }
  clearField(file, FileDescriptorProtoSchema.field.sourceCodeInfo);
  return file;
}

/** A file without what makes no difference: its name, the default names in JSON, the encoding of options. */
function canonical(file: FileDescriptorProto, registry: FileRegistry): FileDescriptorProto {
  const copy = clone(FileDescriptorProtoSchema, file);
  const { name, syntax } = FileDescriptorProtoSchema.field;
  clearField(copy, name);
  canonicalizeOptions(copy, registry);
  if (copy.syntax === "proto2") clearField(copy, syntax);
  const clearJsonName = (field: FieldDescriptorProto): void => {
    if (field.jsonName === defaultJsonName(field.name)) clearField(field, FieldDescriptorProtoSchema.field.jsonName);
  };
  const visit = (message: DescriptorProto): void => {
    for (const field of [...message.field, ...message.extension]) clearJsonName(field);
    for (const nested of message.nestedType) visit(nested);
  };
  for (const message of copy.messageType) visit(message);
  for (const field of copy.extension) clearJsonName(field);
  return copy;
}
