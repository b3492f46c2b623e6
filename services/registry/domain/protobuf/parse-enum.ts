import { create } from "@bufbuild/protobuf";
import {
  type EnumDescriptorProto,
  EnumDescriptorProto_EnumReservedRangeSchema,
  EnumDescriptorProtoSchema,
  EnumOptionsSchema,
  EnumValueDescriptorProtoSchema,
  EnumValueOptionsSchema,
} from "@bufbuild/protobuf/wkt";
import { parseOption, parseOptionList, type RawOption, toOptions } from "./parse-option.ts";
import { parseReserved } from "./parse-reserved.ts";
import type { TokenReader } from "./token-reader.ts";

const minNumber = -0x8000_0000;
const maxNumber = 0x7fff_ffff;

/** The rest of `enum Name { … }`, from the name on. */
export function parseEnum(reader: TokenReader): EnumDescriptorProto {
  const result = create(EnumDescriptorProtoSchema, { name: reader.identifier("the name of an enum") });
  const options: RawOption[] = [];
  reader.expect("{");
  while (!reader.take("}")) {
    if (reader.take(";")) continue;
    if (reader.isWord("option") && !reader.isSymbol("=", 1)) {
      reader.next();
      options.push(parseOption(reader));
      reader.expect(";");
    } else if (reader.isWord("reserved") && !reader.isSymbol("=", 1)) {
      reader.next();
      const { ranges, names } = parseReserved(reader, minNumber, maxNumber);
      // Unlike those of messages, ranges of enums include their end.
      for (const { start, last } of ranges) {
        result.reservedRange.push(create(EnumDescriptorProto_EnumReservedRangeSchema, { start, end: last }));
      }
      result.reservedName.push(...names);
    } else parseValue(reader, result);
  }
  result.options = toOptions(EnumOptionsSchema, options);
  return result;
}

function parseValue(reader: TokenReader, result: EnumDescriptorProto): void {
  const name = reader.identifier("the name of a value");
  reader.expect("=");
  const number = reader.integer("the number of a value", minNumber, maxNumber);
  const options = toOptions(EnumValueOptionsSchema, parseOptionList(reader));
  reader.expect(";");
  result.value.push(create(EnumValueDescriptorProtoSchema, { name, number, ...(options && { options }) }));
}
