import { fromBinary } from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  type FileDescriptorProto,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";

/** The comments of a contract's elements, by their full names; methods and fields as `message.field`. */
export type Comments = ReadonlyMap<string, string>;

/**
 * Reads the comments that stand before elements from a descriptor set with
 * source info. Generated code has none: they would triple its size.
 */
export function readComments(descriptorSet: Uint8Array): Comments {
  const comments = new Map<string, string>();
  for (const file of fromBinary(FileDescriptorSetSchema, descriptorSet).file) {
    const names = namesByPath(file);
    for (const { path, leadingComments } of file.sourceCodeInfo?.location ?? []) {
      const name = leadingComments === "" ? undefined : names.get(path.join("."));
      if (name !== undefined) comments.set(name, toText(leadingComments));
    }
  }
  return comments;
}

/** Lines of a paragraph become one; an empty line stays one. */
function toText(comment: string): string {
  return comment
    .trim()
    .split(/\n\s*\n/)
    .map((paragraph) =>
      paragraph
        .split("\n")
        .map((line) => line.trim())
        .join(" "),
    )
    .join("\n\n");
}

/**
 * Full names by the paths of source info
 * (https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/descriptor.proto,
 * `SourceCodeInfo.Location.path`): field numbers and indexes in turn.
 */
function namesByPath(file: FileDescriptorProto): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  const scope = file.package === "" ? "" : `${file.package}.`;
  file.messageType.forEach((message, index) => addMessage(names, message, `4.${index}`, scope));
  file.enumType.forEach((type, index) => addEnum(names, type, `5.${index}`, scope));
  for (const [index, service] of file.service.entries()) {
    names.set(`6.${index}`, `${scope}${service.name}`);
    for (const [at, method] of service.method.entries()) {
      names.set(`6.${index}.2.${at}`, `${scope}${service.name}.${method.name}`);
    }
  }
  return names;
}

function addMessage(names: Map<string, string>, message: DescriptorProto, path: string, scope: string): void {
  const name = `${scope}${message.name}`;
  names.set(path, name);
  message.field.forEach((field, index) => names.set(`${path}.2.${index}`, `${name}.${field.name}`));
  message.nestedType.forEach((nested, index) => addMessage(names, nested, `${path}.3.${index}`, `${name}.`));
  message.enumType.forEach((type, index) => addEnum(names, type, `${path}.4.${index}`, `${name}.`));
}

function addEnum(names: Map<string, string>, type: EnumDescriptorProto, path: string, scope: string): void {
  const name = `${scope}${type.name}`;
  names.set(path, name);
  type.value.forEach((value, index) => names.set(`${path}.2.${index}`, `${name}.${value.name}`));
}
