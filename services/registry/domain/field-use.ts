import type { DescriptorProto, FileDescriptorProto } from "@bufbuild/protobuf/wkt";

/** A field by its message's full name and its own. */
export interface FieldName {
  readonly typeName: string;
  readonly field: string;
}

/** A consumer group that reads a field. */
export interface FieldReader {
  readonly group: string;
  /** When it read the field last, in milliseconds since the epoch. */
  readonly lastReadMs: number;
  /** How long ago that was when it was looked up, in milliseconds. */
  readonly agoMs: number;
}

/** Who reads a field of a message that consumers sample, last reader first; nobody whom a sample showed if it is empty. */
export interface FieldUse extends FieldName {
  readonly readers: readonly FieldReader[];
}

/** Who reads a field, for people. */
export function describeFieldUse({ readers }: FieldUse): string {
  const [last] = readers;
  if (last === undefined) return "no sampled reads";
  const count = readers.length === 1 ? "1 consumer" : `${readers.length} consumers`;
  return `read by ${count}, last ${describeAgo(last.agoMs)} by ${last.group}`;
}

function describeAgo(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return "less than a minute ago";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ago`;
  return `${Math.floor(minutes / (24 * 60))} days ago`;
}

/** The fields of a file's messages that a later form of the file does not have by number; of those that it has as a whole. */
export function removedFields(before: FileDescriptorProto, after: FileDescriptorProto): readonly FieldName[] {
  const kept = new Map(messagesOf(after));
  return messagesOf(before).flatMap(([typeName, message]) => {
    const next = kept.get(typeName);
    if (next === undefined) return [];
    const numbers = new Set(next.field.map(({ number }) => number));
    return message.field.filter(({ number }) => !numbers.has(number)).map(({ name }) => ({ typeName, field: name }));
  });
}

/** The messages of a file on all levels, by their full names. */
function messagesOf(file: FileDescriptorProto): readonly (readonly [string, DescriptorProto])[] {
  const found: [string, DescriptorProto][] = [];
  const open = file.messageType.map((message) => [file.package, message] as const);
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const [scope, message] = next;
    const typeName = scope === "" ? message.name : `${scope}.${message.name}`;
    found.push([typeName, message]);
    open.push(...message.nestedType.map((nested) => [typeName, nested] as const));
  }
  return found;
}
