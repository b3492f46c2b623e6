import { type FileRegistry, isFieldSet } from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  type FieldDescriptorProto,
  FieldDescriptorProtoSchema,
  FieldOptionsSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { defaultJsonName } from "./json-name.ts";
import { quote } from "./parse-option.ts";
import { printOptions } from "./print-option.ts";

/** Writes fields as they stand in a `.proto` file. */
export class FieldPrinter {
  readonly #syntax: string;
  readonly #registry: FileRegistry;
  readonly #groupBody: (group: DescriptorProto) => readonly string[];

  /** @param groupBody writes what stands between the braces of a group */
  constructor(syntax: string, registry: FileRegistry, groupBody: (group: DescriptorProto) => readonly string[]) {
    this.#syntax = syntax;
    this.#registry = registry;
    this.#groupBody = groupBody;
  }

  /** Whether a message with this full name is a field's own: its group, or the entries of its map. */
  owns(field: FieldDescriptorProto, message: DescriptorProto, fullName: string): boolean {
    if (!field.typeName.endsWith(fullName)) return false;
    return message.options?.mapEntry === true || (this.#syntax !== "editions" && field.type === Type.GROUP);
  }

  /** @param nested the messages around it, among them its own if it is a map or a group */
  field(field: FieldDescriptorProto, nested: readonly DescriptorProto[], place: "message" | "oneof" | "extension") {
    const options = this.#optionsOf(field);
    const suffix = `${field.number}${options.length === 0 ? "" : ` [${options.join(", ")}]`}`;
    const own = nested.find(({ name }) => field.typeName.endsWith(`.${name}`));
    if (own?.options?.mapEntry === true && field.label === Label.REPEATED) {
      const [key, value] = own.field;
      if (key !== undefined && value !== undefined) {
        return [`map<${typeOf(key)}, ${typeOf(value)}> ${field.name} = ${suffix};`];
      }
    }
    const label = place === "oneof" ? "" : this.#labelOf(field, place);
    if (own !== undefined && this.owns(field, own, `.${own.name}`)) {
      const body = this.#groupBody(own).map((line) => `  ${line}`);
      return [`${label}group ${own.name} = ${suffix} {`, ...body, "}"];
    }
    return [`${label}${typeOf(field)} ${field.name} = ${suffix};`];
  }

  /** `extend` blocks: one for each run of fields that extend the same message. */
  extensions(fields: readonly FieldDescriptorProto[], nested: readonly DescriptorProto[]): readonly string[] {
    return fields.flatMap((field, index) => [
      ...(field.extendee === fields[index - 1]?.extendee ? [] : [`extend ${field.extendee} {`]),
      ...this.field(field, nested, "extension").map((line) => `  ${line}`),
      ...(field.extendee === fields[index + 1]?.extendee ? [] : ["}"]),
    ]);
  }

  #labelOf(field: FieldDescriptorProto, place: "message" | "extension"): string {
    if (field.label === Label.REPEATED) return "repeated ";
    if (field.label === Label.REQUIRED) return "required ";
    const isWritten = this.#syntax === "" || this.#syntax === "proto2" || (field.proto3Optional && place === "message");
    return isWritten ? "optional " : "";
  }

  #optionsOf(field: FieldDescriptorProto): readonly string[] {
    const options = [...printOptions(FieldOptionsSchema, field.options, this.#registry)];
    if (isFieldSet(field, FieldDescriptorProtoSchema.field.defaultValue)) {
      options.unshift(`default = ${defaultOf(field)}`);
    }
    if (field.jsonName !== "" && field.jsonName !== defaultJsonName(field.name)) {
      options.push(`json_name = ${quote(Buffer.from(field.jsonName).toString("latin1"))}`);
    }
    return options;
  }
}

const scalarNames: ReadonlyMap<Type, string> = new Map([
  [Type.DOUBLE, "double"],
  [Type.FLOAT, "float"],
  [Type.INT64, "int64"],
  [Type.UINT64, "uint64"],
  [Type.INT32, "int32"],
  [Type.FIXED64, "fixed64"],
  [Type.FIXED32, "fixed32"],
  [Type.BOOL, "bool"],
  [Type.STRING, "string"],
  [Type.BYTES, "bytes"],
  [Type.UINT32, "uint32"],
  [Type.SFIXED32, "sfixed32"],
  [Type.SFIXED64, "sfixed64"],
  [Type.SINT32, "sint32"],
  [Type.SINT64, "sint64"],
]);

function typeOf(field: FieldDescriptorProto): string {
  return field.typeName === "" ? (scalarNames.get(field.type) ?? "") : field.typeName;
}

function defaultOf(field: FieldDescriptorProto): string {
  switch (field.type) {
    case Type.STRING:
      return quote(Buffer.from(field.defaultValue).toString("latin1"));
    case Type.BYTES:
      return `"${field.defaultValue}"`;
    default:
      return field.defaultValue;
  }
}
