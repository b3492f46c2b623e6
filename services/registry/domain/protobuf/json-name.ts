import type { DescriptorProto, FileDescriptorProto } from "@bufbuild/protobuf/wkt";

/** As protoc makes it: the letter after an underscore in upper case. */
export function defaultJsonName(name: string): string {
  return name.replace(/_+([a-zA-Z0-9])?/g, (_all, letter?: string) => letter?.toUpperCase() ?? "");
}

/** Gives every field its name in JSON, as protoc does: readers of a descriptor do not make it up. */
export function fillJsonNames({ messageType }: Pick<FileDescriptorProto, "messageType">): void {
  const visit = ({ field: fields, nestedType }: DescriptorProto): void => {
    for (const field of fields) if (field.jsonName === "") field.jsonName = defaultJsonName(field.name);
    nestedType.forEach(visit);
  };
  messageType.forEach(visit);
}
