import {
  create,
  type DescExtension,
  type DescField,
  type FileRegistry,
  getExtension,
  hasExtension,
  type Message,
  setExtension,
} from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import type { FileDescriptorProto, UninterpretedOption } from "@bufbuild/protobuf/wkt";
import { invalidSchema } from "../schema-fault.ts";
import { mergeText, parseTextValue, UnsupportedText } from "./parse-text-format.ts";
import { uninterpretedName, uninterpretedValue } from "./print-option.ts";
import { TokenReader } from "./token-reader.ts";
import { join } from "./type-index.ts";
import { type FoundOptions, type Options, optionsOf } from "./walk-options.ts";

/**
 * Gives options of extensions their meaning, as protoc does: what stood in the
 * text becomes the extension's value, so that a file is the same whether it
 * came as text or as a descriptor. What the registry does not know, and maps
 * and `Any` within a value, stay as they are written. Changes the file.
 *
 * @throws AppError INVALID_SCHEMA for a value that the extension does not take
 */
export function interpretOptions(file: FileDescriptorProto, registry: FileRegistry): void {
  for (const found of optionsOf(file)) {
    found.options.uninterpretedOption = found.options.uninterpretedOption.filter(
      (option) => !interpret(option, found, registry),
    );
  }
}

/** Brings the values of extensions into one order and one encoding, whoever wrote them. Changes the file. */
export function canonicalizeOptions(file: FileDescriptorProto, registry: FileRegistry): void {
  for (const { schema, options } of optionsOf(file)) {
    const unknown = options.$unknown ?? [];
    if (unknown.length === 0) continue;
    const original: Message = { ...options };
    options.$unknown = [];
    for (const number of [...new Set(unknown.map(({ no }) => no))].sort((a, b) => a - b)) {
      const extension = registry.getExtensionFor(schema, number);
      if (extension === undefined) options.$unknown.push(...unknown.filter(({ no }) => no === number));
      else setExtension(options, extension, getExtension(original, extension) as never);
    }
  }
}

/** Whether an option was understood. */
function interpret(option: UninterpretedOption, found: FoundOptions, registry: FileRegistry): boolean {
  const [first, ...rest] = option.name;
  const extension = first?.isExtension === true ? findExtension(first.namePart, found, registry) : undefined;
  if (extension === undefined || rest.some(({ isExtension }) => isExtension)) return false;
  try {
    setValue(
      found.options,
      extension,
      rest.map(({ namePart }) => namePart),
      uninterpretedValue(option),
    );
    return true;
  } catch (thrown) {
    if (thrown instanceof UnsupportedText) return false;
    const detail = thrown instanceof Error ? thrown.message : String(thrown);
    throw invalidSchema(`option ${uninterpretedName(option)} in ${found.scope}: ${detail}`);
  }
}

function findExtension(
  name: string,
  { schema, scope }: FoundOptions,
  registry: FileRegistry,
): DescExtension | undefined {
  const candidates: string[] = [];
  if (name.startsWith(".")) candidates.push(name.slice(1));
  else {
    const parts = scope === "" ? [] : scope.split(".");
    for (let length = parts.length; length >= 0; length--)
      candidates.push(join(parts.slice(0, length).join("."), name));
  }
  return candidates
    .map((candidate) => registry.getExtension(candidate))
    .find((extension) => extension?.extendee.typeName === schema.typeName);
}

function setValue(options: Options, extension: DescExtension, path: readonly string[], text: string): void {
  const reader = new TokenReader(text);
  if (extension.fieldKind === "list") {
    if (path.length > 0) throw new UnsupportedText();
    const before = hasExtension(options, extension) ? (getExtension(options, extension) as unknown[]) : [];
    setExtension(options, extension, [...before, parseTextValue(reader, extension)] as never);
  } else if (extension.fieldKind === "message") {
    const value = hasExtension(options, extension)
      ? (getExtension(options, extension) as Message)
      : create(extension.message);
    setPart(reflect(extension.message, value), path, reader);
    setExtension(options, extension, value as never);
  } else {
    if (path.length > 0) throw invalidSchema("it has no parts");
    setExtension(options, extension, parseTextValue(reader, extension) as never);
  }
}

function setPart(message: ReflectMessage, [name, ...rest]: readonly string[], reader: TokenReader): void {
  if (name === undefined) {
    reader.expect("{");
    mergeText(reader, message, "}");
    return;
  }
  const field: DescField | undefined = message.fields.find((one) => one.name === name);
  if (field === undefined) throw invalidSchema(`${message.desc.typeName} has no field ${name}`);
  if (field.fieldKind === "map") throw new UnsupportedText();
  if (field.fieldKind === "list") {
    if (rest.length > 0) throw new UnsupportedText();
    message.get(field).add(parseTextValue(reader, field));
  } else if (field.fieldKind === "message") {
    const inner = message.isSet(field) ? message.get(field) : reflect(field.message);
    setPart(inner, rest, reader);
    message.set(field, inner);
  } else {
    if (rest.length > 0) throw invalidSchema(`${name} has no parts`);
    message.set(field, parseTextValue(reader, field) as never);
  }
}
