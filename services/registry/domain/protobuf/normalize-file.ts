import { clone } from "@bufbuild/protobuf";
import { type DescriptorProto, type FileDescriptorProto, FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";

/**
 * A copy without the order of what has none: imports, reserved numbers and
 * names. Messages keep theirs, for frames on Kafka name them by position; so do
 * fields, whose maps are messages as well, and the values of enums, whose first
 * is the default.
 */
export function normalizeFile(file: FileDescriptorProto): FileDescriptorProto {
  const copy = clone(FileDescriptorProtoSchema, file);
  const paths = [...copy.dependency].sort(byText);
  const moved = (index: number): number => paths.indexOf(copy.dependency[index] ?? "");
  copy.publicDependency = copy.publicDependency.map(moved).sort((a, b) => a - b);
  copy.weakDependency = copy.weakDependency.map(moved).sort((a, b) => a - b);
  copy.dependency = paths;
  for (const message of copy.messageType) normalizeMessage(message);
  return copy;
}

function normalizeMessage(message: DescriptorProto): void {
  message.reservedRange.sort((a, b) => a.start - b.start);
  message.extensionRange.sort((a, b) => a.start - b.start);
  message.reservedName.sort(byText);
  for (const nested of message.nestedType) normalizeMessage(nested);
  for (const { reservedRange, reservedName } of message.enumType) {
    reservedRange.sort((a, b) => a.start - b.start);
    reservedName.sort(byText);
  }
}

function byText(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}
