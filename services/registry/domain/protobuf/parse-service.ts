import { create } from "@bufbuild/protobuf";
import {
  type MethodDescriptorProto,
  MethodDescriptorProtoSchema,
  MethodOptionsSchema,
  type ServiceDescriptorProto,
  ServiceDescriptorProtoSchema,
  ServiceOptionsSchema,
} from "@bufbuild/protobuf/wkt";
import { parseOption, type RawOption, toOptions } from "./parse-option.ts";
import type { TokenReader } from "./token-reader.ts";

/** The rest of `service Name { … }`, from the name on. */
export function parseService(reader: TokenReader): ServiceDescriptorProto {
  const service = create(ServiceDescriptorProtoSchema, { name: reader.identifier("the name of a service") });
  const options: RawOption[] = [];
  reader.expect("{");
  while (!reader.take("}")) {
    if (reader.take(";")) continue;
    if (reader.take("option")) {
      options.push(parseOption(reader));
      reader.expect(";");
    } else {
      reader.expect("rpc");
      service.method.push(parseMethod(reader));
    }
  }
  service.options = toOptions(ServiceOptionsSchema, options);
  return service;
}

function parseMethod(reader: TokenReader): MethodDescriptorProto {
  const method = create(MethodDescriptorProtoSchema, { name: reader.identifier("the name of a method") });
  const options: RawOption[] = [];
  const input = parseMessageType(reader);
  reader.expect("returns");
  const output = parseMessageType(reader);
  method.inputType = input.typeName;
  method.outputType = output.typeName;
  if (input.isStream) method.clientStreaming = true;
  if (output.isStream) method.serverStreaming = true;
  if (reader.take("{")) {
    while (!reader.take("}")) {
      if (reader.take(";")) continue;
      reader.expect("option");
      options.push(parseOption(reader));
      reader.expect(";");
    }
  } else reader.expect(";");
  method.options = toOptions(MethodOptionsSchema, options);
  return method;
}

/** `(Type)` or `(stream Type)`. */
function parseMessageType(reader: TokenReader): { readonly typeName: string; readonly isStream: boolean } {
  reader.expect("(");
  const isStream = reader.take("stream");
  const typeName = reader.typeName();
  reader.expect(")");
  return { typeName, isStream };
}
