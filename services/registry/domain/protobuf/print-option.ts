import {
  type DescField,
  type DescMessage,
  type FileRegistry,
  getExtension,
  isFieldSet,
  type Message,
} from "@bufbuild/protobuf";
import { isReflectMessage, type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { type UninterpretedOption, UninterpretedOptionSchema } from "@bufbuild/protobuf/wkt";
import { quote } from "./parse-option.ts";

type OptionsMessage = Message & { readonly uninterpretedOption: readonly UninterpretedOption[] };

/**
 * The options that are set, each as `name = value`: Protobuf's own, those of
 * extensions that the registry knows, and those that were kept as written.
 */
export function printOptions(
  schema: DescMessage,
  options: OptionsMessage | undefined,
  registry: FileRegistry,
): readonly string[] {
  if (options === undefined) return [];
  const message = reflect(schema, options);
  const own = schema.fields
    .filter(({ name }) => name !== "uninterpreted_option" && name !== "map_entry")
    .flatMap((field) => printAssignments(message, field));
  const numbers = new Set((options.$unknown ?? []).map(({ no }) => no));
  const extended = [...numbers].flatMap((number) => {
    const extension = registry.getExtensionFor(schema, number);
    if (extension === undefined) return [];
    const value: unknown = getExtension(options, extension);
    const items: readonly unknown[] = Array.isArray(value) ? value : [value];
    return items.map((item) => `(${extension.typeName}) = ${printValue(extension, item)}`);
  });
  return [...own, ...extended, ...options.uninterpretedOption.map(printUninterpreted)];
}

/** `name = value`, and of a message each of its fields: `name.part = value`. */
function printAssignments(message: ReflectMessage, field: DescField): readonly string[] {
  if (field.fieldKind !== "message" || !message.isSet(field)) {
    return printField(message, field).map((value) => `${field.name} = ${value}`);
  }
  const parts = message.get(field);
  return parts.fields.flatMap((part) => printAssignments(parts, part)).map((part) => `${field.name}.${part}`);
}

/** The values of a field in the text format; none if it is not set. */
function printField(message: ReflectMessage, field: DescField): readonly string[] {
  if (!message.isSet(field)) return [];
  switch (field.fieldKind) {
    case "list":
      return [...message.get(field)].map((item) => printValue(field, item));
    case "map":
      return [...message.get(field)].map(([key, value]) => {
        const written = typeof key === "string" ? quote(toBytes(key)) : String(key);
        return `{ key: ${written} value: ${printValue(field, value)} }`;
      });
    default:
      return [printValue(field, message.get(field))];
  }
}

function printValue(field: Pick<DescField, "enum" | "message">, value: unknown): string {
  if (field.message !== undefined) {
    const message = isReflectMessage(value) ? value : reflect(field.message, value as Message);
    const fields = message.fields.flatMap((inner) =>
      printField(message, inner).map((text) => `${inner.name}: ${text}`),
    );
    return fields.length === 0 ? "{}" : `{ ${fields.join(" ")} }`;
  }
  if (field.enum !== undefined) return field.enum.value[Number(value)]?.name ?? String(value);
  if (typeof value === "string") return quote(toBytes(value));
  if (value instanceof Uint8Array) return quote(Buffer.from(value).toString("latin1"));
  return String(value).replace("Infinity", "inf").replace("NaN", "nan");
}

function printUninterpreted(option: UninterpretedOption): string {
  return `${uninterpretedName(option)} = ${uninterpretedValue(option)}`;
}

/** The name of an option as it is written: `(buf.validate.field).string.pattern`. */
export function uninterpretedName({ name }: UninterpretedOption): string {
  return name.map(({ namePart, isExtension }) => (isExtension ? `(${namePart})` : namePart)).join(".");
}

/** The value of an option as it is written; of a message the words between its braces with them. */
export function uninterpretedValue(option: UninterpretedOption): string {
  const { aggregateValue, stringValue } = UninterpretedOptionSchema.field;
  if (isFieldSet(option, aggregateValue)) return `{ ${option.aggregateValue} }`;
  if (option.identifierValue !== "") return option.identifierValue;
  if (isFieldSet(option, stringValue)) return quote(Buffer.from(option.stringValue).toString("latin1"));
  if (option.negativeIntValue !== 0n) return String(option.negativeIntValue);
  if (option.doubleValue !== 0) return String(option.doubleValue);
  return String(option.positiveIntValue);
}

function toBytes(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}
