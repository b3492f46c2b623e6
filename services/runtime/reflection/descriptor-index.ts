import type { DescExtension, DescFile, DescMessage, DescService } from "@bufbuild/protobuf";
import { toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";

/** Finds the files of contracts by what is in them. */
export interface DescriptorIndex {
  /** The names of the services that are served, sorted. */
  readonly services: readonly string[];
  fileByName(name: string): DescFile | undefined;
  /** The file that declares a service, method, message, field, oneof, enum, enum value or extension, by its full name. */
  fileOfSymbol(symbol: string): DescFile | undefined;
  fileOfExtension(extendee: string, number: number): DescFile | undefined;
  /** The numbers of all extensions of a message, ascending; `undefined` if there is no such message. */
  extensionNumbers(extendee: string): readonly number[] | undefined;
}

/** Indexes the files of services and everything that they import. */
export function indexDescriptors(services: readonly DescService[]): DescriptorIndex {
  const files = new Map<string, DescFile>();
  const symbols = new Map<string, DescFile>();
  const extensions = new Map<string, Map<number, DescFile>>();

  const addExtension = (extension: DescExtension, file: DescFile): void => {
    symbols.set(extension.typeName, file);
    const { typeName } = extension.extendee;
    const ofExtendee = extensions.get(typeName) ?? new Map<number, DescFile>();
    ofExtendee.set(extension.number, file);
    extensions.set(typeName, ofExtendee);
  };
  const addEnum = (desc: DescFile["enums"][number], file: DescFile): void => {
    symbols.set(desc.typeName, file);
    // The values of an enum are its siblings in Protobuf's name space.
    const scope = desc.typeName.slice(0, desc.typeName.lastIndexOf(".") + 1);
    for (const value of desc.values) symbols.set(scope + value.name, file);
  };
  const addMessage = (message: DescMessage, file: DescFile): void => {
    symbols.set(message.typeName, file);
    for (const { name } of [...message.fields, ...message.oneofs]) symbols.set(`${message.typeName}.${name}`, file);
    for (const nested of message.nestedMessages) addMessage(nested, file);
    for (const nested of message.nestedEnums) addEnum(nested, file);
    for (const nested of message.nestedExtensions) addExtension(nested, file);
  };
  const addFile = (file: DescFile): void => {
    const name = file.proto.name;
    if (files.has(name)) return;
    files.set(name, file);
    for (const message of file.messages) addMessage(message, file);
    for (const desc of file.enums) addEnum(desc, file);
    for (const extension of file.extensions) addExtension(extension, file);
    for (const service of file.services) {
      symbols.set(service.typeName, file);
      for (const method of service.methods) symbols.set(`${service.typeName}.${method.name}`, file);
    }
    for (const dependency of file.dependencies) addFile(dependency);
  };
  for (const service of services) addFile(service.file);

  return {
    services: services.map((service) => service.typeName).sort(),
    fileByName: (name) => files.get(name),
    fileOfSymbol: (symbol) => symbols.get(symbol),
    fileOfExtension: (extendee, number) => extensions.get(extendee)?.get(number),
    extensionNumbers(extendee) {
      const numbers = extensions.get(extendee);
      if (numbers !== undefined) return [...numbers.keys()].sort((a, b) => a - b);
      return symbols.has(extendee) ? [] : undefined;
    },
  };
}

/** A file and all that it imports, encoded, less those named in `sent`, which is extended by them. */
export function encodeWithImports(file: DescFile, sent: Set<string>): Uint8Array[] {
  if (sent.has(file.proto.name)) return [];
  sent.add(file.proto.name);
  const own = toBinary(FileDescriptorProtoSchema, file.proto);
  return [own, ...file.dependencies.flatMap((dependency) => encodeWithImports(dependency, sent))];
}
