import { type DescMessage, type FileRegistry, isFieldSet } from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  EnumOptionsSchema,
  EnumValueOptionsSchema,
  ExtensionRangeOptionsSchema,
  type FieldDescriptorProto,
  FieldDescriptorProtoSchema,
  type FileDescriptorProto,
  FileOptionsSchema,
  MessageOptionsSchema,
  MethodOptionsSchema,
  OneofOptionsSchema,
  type ServiceDescriptorProto,
  ServiceOptionsSchema,
} from "@bufbuild/protobuf/wkt";
import { FieldPrinter } from "./print-field.ts";
import { printOptions } from "./print-option.ts";

const maxFieldNumber = 0x1fff_ffff;
const maxEnumNumber = 0x7fff_ffff;

/**
 * Writes a file as the text that compiles to it. Types have their full names.
 *
 * @param registry knows the extensions that its options are
 */
export function printFile(file: FileDescriptorProto, registry: FileRegistry): string {
  const printer = new FilePrinter(file, registry);
  return `${printer.lines().join("\n")}\n`;
}

class FilePrinter {
  readonly #file: FileDescriptorProto;
  readonly #registry: FileRegistry;
  readonly #fields: FieldPrinter;

  constructor(file: FileDescriptorProto, registry: FileRegistry) {
    this.#file = file;
    this.#registry = registry;
    this.#fields = new FieldPrinter(file.syntax, registry, (group) => this.#messageBody(group, `.${group.name}`));
  }

  lines(): readonly string[] {
    const file = this.#file;
    const scope = file.package === "" ? "" : `.${file.package}`;
    return [
      file.syntax === "editions" ? 'edition = "2023";' : `syntax = "${file.syntax || "proto2"}";`,
      ...(file.package === "" ? [] : [`package ${file.package};`]),
      ...file.dependency.map((path, index) => {
        const isPublic = file.publicDependency.includes(index);
        const isWeak = file.weakDependency.includes(index);
        return `import ${isPublic ? "public " : isWeak ? "weak " : ""}${JSON.stringify(path)};`;
      }),
      ...this.#options(FileOptionsSchema, file.options),
      ...file.messageType.flatMap((message) => this.#message(message, scope)),
      ...file.enumType.flatMap((declared) => this.#enum(declared)),
      ...this.#fields.extensions(file.extension, file.messageType),
      ...file.service.flatMap((service) => this.#service(service)),
    ];
  }

  #message(message: DescriptorProto, scope: string): readonly string[] {
    return [`message ${message.name} {`, ...indent(this.#messageBody(message, `${scope}.${message.name}`)), "}"];
  }

  #messageBody(message: DescriptorProto, name: string): readonly string[] {
    return [
      ...this.#options(MessageOptionsSchema, message.options),
      ...this.#membersOf(message, name),
      ...message.enumType.flatMap((declared) => this.#enum(declared)),
      ...message.extensionRange.map((range) => {
        const options = printOptions(ExtensionRangeOptionsSchema, range.options, this.#registry);
        return `extensions ${printRange(range.start, range.end - 1, maxFieldNumber)}${bracketed(options)};`;
      }),
      ...message.reservedRange.map(({ start, end }) => `reserved ${printRange(start, end - 1, maxFieldNumber)};`),
      ...this.#reservedNames(message.reservedName),
    ];
  }

  /**
   * Fields and extensions in their order, those of a oneof where its first one
   * stands, and messages between them: maps and groups are messages as well, and
   * all keep their positions, by which frames on Kafka name them.
   */
  #membersOf(message: DescriptorProto, name: string): readonly string[] {
    const lines: string[] = [];
    const open = message.nestedType.filter((nested) => !this.#isOfField(message, nested, `${name}.${nested.name}`));
    const printMessagesBefore = (position: number): void => {
      for (let next = open[0]; next !== undefined; next = open[0]) {
        if (message.nestedType.indexOf(next) > position) return;
        open.shift();
        lines.push(...this.#message(next, name));
      }
    };
    const positionOf = (field: FieldDescriptorProto): number =>
      message.nestedType.findIndex((nested) => this.#fields.owns(field, nested, `${name}.${nested.name}`));
    const oneofs = new Set<number>();
    for (const field of message.field) {
      const index = isWrittenMember(field) ? field.oneofIndex : undefined;
      if (index !== undefined && oneofs.has(index)) continue;
      const members =
        index === undefined
          ? [field]
          : message.field.filter((other) => isWrittenMember(other) && other.oneofIndex === index);
      printMessagesBefore(Math.max(...members.map(positionOf)));
      if (index === undefined) lines.push(...this.#fields.field(field, message.nestedType, "message"));
      else {
        oneofs.add(index);
        lines.push(...this.#oneof(message, index, members));
      }
    }
    printMessagesBefore(Math.max(-1, ...message.extension.map(positionOf)));
    lines.push(...this.#fields.extensions(message.extension, message.nestedType));
    printMessagesBefore(message.nestedType.length);
    return lines;
  }

  #isOfField(message: DescriptorProto, nested: DescriptorProto, name: string): boolean {
    return [...message.field, ...message.extension].some((field) => this.#fields.owns(field, nested, name));
  }

  #oneof(message: DescriptorProto, index: number, members: readonly FieldDescriptorProto[]): readonly string[] {
    const oneof = message.oneofDecl[index];
    const body = [
      ...this.#options(OneofOptionsSchema, oneof?.options),
      ...members.flatMap((member) => this.#fields.field(member, message.nestedType, "oneof")),
    ];
    return [`oneof ${oneof?.name} {`, ...indent(body), "}"];
  }

  #enum(declared: EnumDescriptorProto): readonly string[] {
    const body = [
      ...this.#options(EnumOptionsSchema, declared.options),
      ...declared.value.map(({ name, number, options }) => {
        const printed = printOptions(EnumValueOptionsSchema, options, this.#registry);
        return `${name} = ${number}${bracketed(printed)};`;
      }),
      ...declared.reservedRange.map(({ start, end }) => `reserved ${printRange(start, end, maxEnumNumber)};`),
      ...this.#reservedNames(declared.reservedName),
    ];
    return [`enum ${declared.name} {`, ...indent(body), "}"];
  }

  #service(service: ServiceDescriptorProto): readonly string[] {
    const methods = service.method.flatMap((method) => {
      const input = `${method.clientStreaming ? "stream " : ""}${method.inputType}`;
      const output = `${method.serverStreaming ? "stream " : ""}${method.outputType}`;
      const options = this.#options(MethodOptionsSchema, method.options);
      const head = `rpc ${method.name}(${input}) returns (${output})`;
      return options.length === 0 ? [`${head};`] : [`${head} {`, ...indent(options), "}"];
    });
    const body = [...this.#options(ServiceOptionsSchema, service.options), ...methods];
    return [`service ${service.name} {`, ...indent(body), "}"];
  }

  #options(schema: DescMessage, options: Parameters<typeof printOptions>[1]): readonly string[] {
    return printOptions(schema, options, this.#registry).map((option) => `option ${option};`);
  }

  #reservedNames(names: readonly string[]): readonly string[] {
    if (names.length === 0) return [];
    const isBare = this.#file.syntax === "editions";
    return [`reserved ${names.map((name) => (isBare ? name : JSON.stringify(name))).join(", ")};`];
  }
}

/** Whether a field stands in a oneof; the one around an `optional` field is not written. */
function isWrittenMember(field: FieldDescriptorProto): boolean {
  return isFieldSet(field, FieldDescriptorProtoSchema.field.oneofIndex) && !field.proto3Optional;
}

function printRange(start: number, last: number, max: number): string {
  if (start === last) return String(start);
  return `${start} to ${last === max ? "max" : last}`;
}

/** Options in brackets, with a blank before; nothing for none. */
function bracketed(options: readonly string[]): string {
  return options.length === 0 ? "" : ` [${options.join(", ")}]`;
}

function indent(lines: readonly string[]): readonly string[] {
  return lines.map((line) => `  ${line}`);
}
