import {
  createFileRegistry,
  type DescField,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  getOption,
  hasOption,
  ScalarType,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { field as fieldRules } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { authz, Exposure, event_stream, exposure, host, Relation } from "@cadre/gen/cadre/options/v1/options_pb";

/**
 * Lints what buf cannot know of our contracts. Returns one line a problem:
 * where, and what is missing.
 *
 * @param descriptorSet a `google.protobuf.FileDescriptorSet` with its imports
 * @param isOurs whether a file is held to our rules
 */
export function lintOwnRules(descriptorSet: Uint8Array, isOurs: (file: string) => boolean): string[] {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptorSet));
  const problems: string[] = [];
  for (const file of registry.files) {
    if (!isOurs(`${file.name}.proto`)) continue;
    for (const service of file.services) problems.push(...lintService(service));
    for (const message of file.messages) problems.push(...lintMessage(message));
  }
  return problems;
}

function lintService(service: DescService): string[] {
  const problems: string[] = [];
  if (getOption(service, exposure) === Exposure.UNSPECIFIED) problems.push(`${service.typeName}: no option exposure`);
  if (getOption(service, host) === "") problems.push(`${service.typeName}: no option host`);
  for (const method of service.methods) {
    const where = `${service.typeName}/${method.name}`;
    problems.push(...lintMethod(service, method).map((problem) => `${where}: ${problem}`));
  }
  return problems;
}

function lintMethod(service: DescService, method: DescMethod): string[] {
  const problems: string[] = [];
  const isPublic = getOption(service, exposure) === Exposure.PUBLIC;
  if (isPublic && (method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming")) {
    problems.push("a public method cannot stream from the client: browsers have nothing to do it with");
  }
  if (!hasOption(method, authz)) return [...problems, "no option authz"];
  const rule = getOption(method, authz);
  if (rule.resource === "") problems.push("authz names no resource");
  if (rule.relation === Relation.UNSPECIFIED) problems.push("authz names no relation");
  if (isPublic && rule.callers.length > 0) problems.push("a public method cannot name callers");
  if (!isPublic && rule.callers.length === 0) problems.push("authz of an internal method names no callers");
  if (rule.idField !== "" && !hasField(method.input, rule.idField)) {
    problems.push(`authz.id_field ${rule.idField} is not in ${method.input.typeName}`);
  }
  const ids = method.input.fields.filter((field) => isId(field) && field.fieldKind === "scalar");
  if (isPublic && rule.idField === "" && ids.length > 0 && method.methodKind !== "unary") {
    problems.push(`takes ${ids.map((field) => field.name).join(", ")} but authz names no id_field`);
  }
  if (hasOption(method, event_stream)) problems.push(...lintEventStream(method));
  return problems;
}

function lintEventStream(method: DescMethod): string[] {
  const { cursorField, eventField, seqField, typeOneof } = getOption(method, event_stream);
  const problems: string[] = [];
  if (method.methodKind !== "server_streaming") problems.push("event_stream on a method that streams nothing");
  if (!hasField(method.input, cursorField)) problems.push(`event_stream.cursor_field ${cursorField} does not exist`);
  const event = method.output.fields.find((field) => field.name === eventField);
  if (event?.message === undefined) return [...problems, `event_stream.event_field ${eventField} is no message`];
  if (!hasField(event.message, seqField)) problems.push(`event_stream.seq_field ${seqField} does not exist`);
  if (!event.message.oneofs.some((oneof) => oneof.name === typeOneof)) {
    problems.push(`event_stream.type_oneof ${typeOneof} does not exist`);
  }
  return problems;
}

function lintMessage(message: DescMessage): string[] {
  return [
    ...message.fields
      .filter((field) => isId(field) && !hasOption(field, fieldRules))
      .map((field) => `${message.typeName}.${field.name}: an id without a rule (buf.validate)`),
    ...message.nestedMessages.filter((nested) => nested.proto.options?.mapEntry !== true).flatMap(lintMessage),
  ];
}

function isId(field: DescField): boolean {
  const isText =
    (field.fieldKind === "scalar" && field.scalar === ScalarType.STRING) ||
    (field.fieldKind === "list" && field.listKind === "scalar" && field.scalar === ScalarType.STRING);
  return isText && /_ids?$/.test(field.name);
}

function hasField(message: DescMessage, name: string): boolean {
  return message.fields.some((field) => field.name === name);
}
