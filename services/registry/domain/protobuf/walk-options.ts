import type { DescMessage, Message } from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  EnumOptionsSchema,
  EnumValueOptionsSchema,
  ExtensionRangeOptionsSchema,
  FieldOptionsSchema,
  type FileDescriptorProto,
  FileOptionsSchema,
  MessageOptionsSchema,
  MethodOptionsSchema,
  OneofOptionsSchema,
  ServiceOptionsSchema,
  type UninterpretedOption,
} from "@bufbuild/protobuf/wkt";
import { join } from "./type-index.ts";

/** A message of options, of whichever element. */
export type Options = Message & { uninterpretedOption: UninterpretedOption[] };

/** Options that an element of a file has. */
export interface FoundOptions {
  readonly schema: DescMessage;
  readonly options: Options;
  /** The full name of what the element stands in, where the names of extensions are looked up. */
  readonly scope: string;
}

/** All options of a file, in its order. */
export function optionsOf(file: FileDescriptorProto): readonly FoundOptions[] {
  const found: FoundOptions[] = [];
  const add = (schema: DescMessage, element: { options?: Options | undefined }, scope: string): void => {
    if (element.options !== undefined) found.push({ schema, options: element.options, scope });
  };
  const visitEnum = (declared: EnumDescriptorProto, scope: string): void => {
    add(EnumOptionsSchema, declared, scope);
    for (const value of declared.value) add(EnumValueOptionsSchema, value, scope);
  };
  const visitMessage = (message: DescriptorProto, outer: string): void => {
    const scope = join(outer, message.name);
    add(MessageOptionsSchema, message, scope);
    for (const field of [...message.field, ...message.extension]) add(FieldOptionsSchema, field, scope);
    for (const oneof of message.oneofDecl) add(OneofOptionsSchema, oneof, scope);
    for (const range of message.extensionRange) add(ExtensionRangeOptionsSchema, range, scope);
    for (const nested of message.nestedType) visitMessage(nested, scope);
    for (const nested of message.enumType) visitEnum(nested, scope);
  };
  add(FileOptionsSchema, file, file.package);
  for (const message of file.messageType) visitMessage(message, file.package);
  for (const declared of file.enumType) visitEnum(declared, file.package);
  for (const extension of file.extension) add(FieldOptionsSchema, extension, file.package);
  for (const service of file.service) {
    const scope = join(file.package, service.name);
    add(ServiceOptionsSchema, service, scope);
    for (const method of service.method) add(MethodOptionsSchema, method, scope);
  }
  return found;
}
