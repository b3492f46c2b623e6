import type { DescEnum, DescFile, DescMessage, FileRegistry } from "@bufbuild/protobuf";
import { compareEnum } from "./compare-enum.ts";
import { compareMessage } from "./compare-message.ts";
import { compareService } from "./compare-service.ts";
import type { Finding } from "./finding.ts";
import type { Directions } from "./level.ts";

/** A compiled file, and all types that it knows. */
export interface ProtobufVersion {
  readonly file: DescFile;
  readonly registry: FileRegistry;
}

/**
 * What of a new version of a file breaks who holds to an earlier one: in its
 * own messages and services, and in all imported messages that they are made
 * of. docs/guides/registry.md lists the rules.
 *
 * @param directions what one of the two must be able to read of the other; the rules about the contract's history hold
 *   in either direction
 */
export function compareProtobuf(
  previous: ProtobufVersion,
  next: ProtobufVersion,
  directions: Directions,
): readonly Finding[] {
  const file = `${next.file.name}.proto`;
  const { package: before } = previous.file.proto;
  const { package: after } = next.file.proto;
  if (before !== after) {
    const detail = `the package was "${before}" and is "${after}"`;
    return [{ rule: "FILE_SAME_PACKAGE", file, typeName: "", member: "", detail }];
  }
  const findings: Finding[] = [];
  const gone = (rule: string, typeName: string, what: string): void => {
    findings.push({ rule, file, typeName, member: "", detail: `the ${what} was removed` });
  };
  const types = typesOf(previous.file);
  for (const type of reachable(types)) {
    if (type.kind === "message") {
      const same = next.registry.getMessage(type.typeName);
      if (same !== undefined) findings.push(...compareMessage(type, same, directions));
      else if (type.file === previous.file) gone("MESSAGE_NO_DELETE", type.typeName, "message");
    } else {
      const same = next.registry.getEnum(type.typeName);
      if (same !== undefined) findings.push(...compareEnum(type, same));
      else if (type.file === previous.file) gone("ENUM_NO_DELETE", type.typeName, "enum");
    }
  }
  for (const service of previous.file.services) {
    const same = next.registry.getService(service.typeName);
    if (same === undefined) gone("SERVICE_NO_DELETE", service.typeName, "service");
    else findings.push(...compareService(service, same));
  }
  return findings;
}

type Type = DescMessage | DescEnum;

/** The messages and enums that a file declares, on all levels. */
function typesOf(scope: DescFile | DescMessage): readonly Type[] {
  const messages = scope.kind === "file" ? scope.messages : scope.nestedMessages;
  const enums = scope.kind === "file" ? scope.enums : scope.nestedEnums;
  return [...messages.flatMap((message) => [message, ...typesOf(message)]), ...enums];
}

/** Types, and those that fields among them have; without Protobuf's own. */
function reachable(types: readonly Type[]): ReadonlySet<Type> {
  const found = new Set<Type>();
  const open = [...types];
  for (let type = open.pop(); type !== undefined; type = open.pop()) {
    if (found.has(type) || type.file.proto.package === "google.protobuf") continue;
    found.add(type);
    if (type.kind === "enum") continue;
    for (const field of type.fields) {
      const used = field.message ?? field.enum;
      if (used !== undefined) open.push(used);
    }
  }
  return found;
}
