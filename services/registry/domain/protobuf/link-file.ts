import {
  type DescriptorProto,
  type FieldDescriptorProto,
  type FileDescriptorProto,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { invalidSchema } from "../schema-fault.ts";
import { join, resolveName, type SymbolKind, symbolsOf, visibleFiles } from "./type-index.ts";

/**
 * Replaces the names of types as they stand in a text by full ones with a
 * leading dot, and says of each whether it is a message or an enum. Changes the
 * file.
 *
 * @param fileOf the file of an import; throws if there is none
 * @throws AppError INVALID_SCHEMA for a name that nothing has
 */
export function linkFile(file: FileDescriptorProto, fileOf: (path: string) => FileDescriptorProto): void {
  const symbols = new Map<string, SymbolKind>();
  for (const visible of [...visibleFiles(file, fileOf), file]) {
    for (const [name, kind] of symbolsOf(visible)) symbols.set(name, kind);
  }
  const resolve = (name: string, scope: string, what: string): { name: string; kind: SymbolKind } => {
    const found = resolveName(symbols, name, scope);
    const kind = found === undefined ? undefined : symbols.get(found);
    if (found === undefined || kind === undefined) throw invalidSchema(`${what}: there is no type ${name}`);
    return { name: `.${found}`, kind };
  };
  const linkField = (field: FieldDescriptorProto, scope: string): void => {
    const what = `${join(scope, field.name)}`;
    if (field.extendee !== "") {
      const { name, kind } = resolve(field.extendee, scope, what);
      if (kind !== "message") throw invalidSchema(`${what}: extends ${field.extendee}, which is no message`);
      field.extendee = name;
    }
    if (field.typeName === "") return;
    const { name, kind } = resolve(field.typeName, scope, what);
    field.typeName = name;
    if (kind === "enum") field.type = Type.ENUM;
    else if (kind !== "message") throw invalidSchema(`${what}: ${field.typeName} is no type`);
    else if (field.type !== Type.GROUP) field.type = Type.MESSAGE;
  };
  const linkMessage = (message: DescriptorProto, scope: string): void => {
    const name = join(scope, message.name);
    for (const field of [...message.field, ...message.extension]) linkField(field, name);
    for (const nested of message.nestedType) linkMessage(nested, name);
  };
  for (const message of file.messageType) linkMessage(message, file.package);
  for (const field of file.extension) linkField(field, file.package);
  for (const service of file.service) {
    const scope = join(file.package, service.name);
    for (const method of service.method) {
      const what = join(scope, method.name);
      for (const side of ["inputType", "outputType"] as const) {
        const { name, kind } = resolve(method[side], scope, what);
        if (kind !== "message") throw invalidSchema(`${what}: ${method[side]} is no message`);
        method[side] = name;
      }
    }
  }
}
