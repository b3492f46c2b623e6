import { isFieldSet } from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  type FieldDescriptorProto,
  FieldDescriptorProtoSchema,
  type FileDescriptorProto,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import type { AppError } from "../../../runtime/errors/app-error.ts";
import { invalidSchema } from "../schema-fault.ts";
import { join } from "./type-index.ts";

/** Numbers that Protobuf keeps for itself, both included. */
const keptNumbers = { first: 19_000, last: 19_999 };
const maxFieldNumber = 0x1fff_ffff;
const identifier = /^[A-Za-z_][A-Za-z0-9_]*$/;

/**
 * Holds a file to what every compiler demands and a parser does not see: names
 * and numbers that are there once, reserved ones that are not used, enums that
 * begin with zero.
 *
 * @throws AppError INVALID_SCHEMA naming the element
 */
export function assertFile(file: FileDescriptorProto): void {
  if (!["", "proto2", "proto3", "editions"].includes(file.syntax)) {
    throw invalidSchema(`syntax ${JSON.stringify(file.syntax)} is not understood`);
  }
  assertPackage(file.package);
  if (file.dependency.length > maxImports) throw invalidSchema(`it imports more than ${maxImports} files`);
  const context = { syntax: file.syntax, names: new Names() };
  for (const message of file.messageType) assertMessage(message, file.package, context);
  for (const declared of file.enumType) assertEnum(declared, file.package, context);
  for (const extension of file.extension) assertField(extension, join(file.package, extension.name), context);
  for (const service of file.service) {
    const scope = context.names.add(file.package, service.name);
    for (const method of service.method) context.names.add(scope, method.name);
  }
}

interface Context {
  readonly syntax: string;
  readonly names: Names;
}

const maxImports = 500;
/** Messages, fields, values and the like of one file: comparing and printing take time by their square. */
const maxNames = 20_000;
/** Of one message or enum, ranges as well as names. */
const maxReserved = 1_000;
const maxNameLength = 512;

/** The full names of a file, each there once. */
class Names {
  readonly #seen = new Set<string>();

  add(scope: string, name: string): string {
    if (!identifier.test(name)) throw invalidSchema(`${scope}: ${JSON.stringify(name.slice(0, 100))} is no name`);
    const full = join(scope, name);
    if (this.#seen.has(full)) throw invalidSchema(`${full} is declared twice`);
    if (full.length > maxNameLength) throw invalidSchema(`a full name has at most ${maxNameLength} characters`);
    if (this.#seen.size >= maxNames) throw invalidSchema(`it declares more than ${maxNames} names`);
    this.#seen.add(full);
    return full;
  }
}

function assertPackage(name: string): void {
  if (name === "") return;
  const isName = name.length <= maxNameLength && name.split(".").every((part) => identifier.test(part));
  if (!isName) throw invalidSchema(`${JSON.stringify(name.slice(0, 100))} is no name of a package`);
}

function assertMessage(message: DescriptorProto, scope: string, context: Context): void {
  const name = context.names.add(scope, message.name);
  const fault = (text: string): AppError => invalidSchema(`message ${name}: ${text}`);
  assertReservedCount(message.reservedRange.length + message.extensionRange.length, message.reservedName.length, fault);
  const numbers = new Map<number, string>();
  for (const field of message.field) {
    assertField(field, context.names.add(name, field.name), context);
    const other = numbers.get(field.number);
    if (other !== undefined) throw fault(`fields ${other} and ${field.name} have the same number ${field.number}`);
    numbers.set(field.number, field.name);
    if (message.reservedName.includes(field.name)) throw fault(`the name ${field.name} is reserved`);
    const isIn = ({ start, end }: { start: number; end: number }) => field.number >= start && field.number < end;
    if (message.reservedRange.some(isIn)) throw fault(`field ${field.name}: the number ${field.number} is reserved`);
    if (message.extensionRange.some(isIn)) {
      throw fault(`field ${field.name}: the number ${field.number} is for extensions`);
    }
    if (isInOneof(field) && message.oneofDecl[field.oneofIndex] === undefined)
      throw fault(`field ${field.name} is of a oneof that is not there`);
  }
  const filled = new Set(message.field.filter(isInOneof).map(({ oneofIndex }) => oneofIndex));
  for (const [index, oneof] of message.oneofDecl.entries()) {
    context.names.add(name, oneof.name);
    if (!filled.has(index)) throw fault(`oneof ${oneof.name} has no field`);
  }
  assertApart([...message.reservedRange, ...message.extensionRange], fault);
  if (context.syntax === "proto3" && message.extensionRange.length > 0) throw fault("proto3 has no extension ranges");
  for (const extension of message.extension) {
    assertField(extension, context.names.add(name, extension.name), context);
  }
  for (const nested of message.nestedType) assertMessage(nested, name, context);
  for (const nested of message.enumType) assertEnum(nested, name, context);
}

/** Whether a field belongs to a oneof: index 0 is the first, so presence decides. */
function isInOneof(field: FieldDescriptorProto): boolean {
  return isFieldSet(field, FieldDescriptorProtoSchema.field.oneofIndex);
}

function assertField(field: FieldDescriptorProto, name: string, { syntax }: Context): void {
  const { number } = field;
  if (!Number.isInteger(number) || number < 1 || number > maxFieldNumber) {
    throw invalidSchema(`field ${name}: the number is 1 to ${maxFieldNumber}`);
  }
  if (number >= keptNumbers.first && number <= keptNumbers.last) {
    throw invalidSchema(`field ${name}: the numbers ${keptNumbers.first} to ${keptNumbers.last} are Protobuf's own`);
  }
  if (syntax !== "proto3") return;
  if (field.label === Label.REQUIRED) throw invalidSchema(`field ${name}: proto3 has no required`);
  if (field.type === Type.GROUP) throw invalidSchema(`field ${name}: proto3 has no groups`);
}

function assertEnum(declared: EnumDescriptorProto, scope: string, context: Context): void {
  const name = context.names.add(scope, declared.name);
  const fault = (text: string): AppError => invalidSchema(`enum ${name}: ${text}`);
  const [first] = declared.value;
  if (first === undefined) throw fault("has no value");
  if (context.syntax === "proto3" && first.number !== 0) throw fault("the first value of proto3 is zero");
  assertReservedCount(declared.reservedRange.length, declared.reservedName.length, fault);
  const numbers = new Map<number, string>();
  for (const value of declared.value) {
    // As in C++, values are names of the scope around the enum.
    context.names.add(scope, value.name);
    const other = numbers.get(value.number);
    if (other !== undefined && declared.options?.allowAlias !== true) {
      throw fault(`${other} and ${value.name} have the same number ${value.number}`);
    }
    numbers.set(value.number, value.name);
    if (declared.reservedName.includes(value.name)) throw fault(`the name ${value.name} is reserved`);
    if (declared.reservedRange.some(({ start, end }) => value.number >= start && value.number <= end)) {
      throw fault(`value ${value.name}: the number ${value.number} is reserved`);
    }
  }
  assertApart(
    declared.reservedRange.map(({ start, end }) => ({ start, end: end + 1 })),
    fault,
  );
}

function assertReservedCount(ranges: number, names: number, fault: (text: string) => AppError): void {
  if (ranges > maxReserved || names > maxReserved) throw fault(`at most ${maxReserved} ranges and names are reserved`);
}

/** Ranges, their ends excluded, share no number. */
function assertApart(
  ranges: readonly { readonly start: number; readonly end: number }[],
  fault: (text: string) => AppError,
): void {
  const sorted = [...ranges].sort((a, b) => a.start - b.start);
  for (const [index, range] of sorted.entries()) {
    const before = sorted[index - 1];
    if (range.end <= range.start) throw fault(`the range from ${range.start} is empty`);
    if (before !== undefined && before.end > range.start) throw fault(`ranges that share the number ${range.start}`);
  }
}
